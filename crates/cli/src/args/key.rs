//! `holdfast key`: the key slots of an encrypted repository. Secrets come from files and the environment, never from an
//! argument. A public key is no secret, so it may be one.

use clap::Subcommand;
use holdfast_repo::name::SlotName;
use std::path::PathBuf;

/// `holdfast key`
#[derive(Clone, Debug, Subcommand)]
pub enum KeyCommand {
    /// List the key slots: each is for a passphrase, a key file or a public key
    List,
    /// Add another passphrase, key file or public key, whose owner can open the repository
    Add {
        /// What the new slot will be called, such as vault or host-2
        name: SlotName,
        #[command(flatten)]
        secret: NewSecret,
        /// The repository with this number; the first one in the configuration is 1 [default: the only one]
        #[arg(long, value_name = "N")]
        repo: Option<usize>,
    },
    /// Make a key pair: writes the private key into a new file and prints the public key
    Generate {
        /// The new file; it must not exist
        file: PathBuf,
    },
    /// Encrypt new data under a new key, and replace the key slots; existing data stays readable
    Rotate(RotateArgs),
    /// Remove a key slot; all data stays readable with the others
    Remove {
        /// The slot, as `key list` shows it
        name: SlotName,
        /// The repository with this number; the first one in the configuration is 1 [default: the only one]
        #[arg(long, value_name = "N")]
        repo: Option<usize>,
    },
}

/// The secret of a new slot.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct NewSecret {
    /// A file that holds the new passphrase; a newline at its end does not count
    #[arg(long = "new-passphrase-file", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// An environment variable that holds the new passphrase
    #[arg(long = "new-passphrase-env", value_name = "NAME")]
    pub passphrase_variable: Option<String>,
    /// The new key file: 32 bytes, 64 hexadecimal digits, or a private key (AGE-SECRET-KEY-1...)
    #[arg(long = "new-key-file", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// A public key (age1...), or a file that holds one: only the owner of its private key can open the new slot
    #[arg(long, value_name = "KEY or FILE")]
    pub recipient: Option<String>,
}

/// `holdfast key rotate`
#[derive(Clone, Debug, clap::Args)]
pub struct RotateArgs {
    /// A file with another passphrase that should open the repository after the rotation; may be repeated
    #[arg(long = "passphrase-file", value_name = "FILE")]
    pub passphrase_files: Vec<PathBuf>,
    /// An environment variable with another passphrase that should open the repository after it; may be repeated
    #[arg(long = "passphrase-env", value_name = "NAME")]
    pub passphrase_variables: Vec<String>,
    /// Another key file that should open the repository after the rotation; may be repeated
    #[arg(long = "key-file", value_name = "FILE")]
    pub key_files: Vec<PathBuf>,
    /// The public key (age1...) of a slot, or a file that holds it, whose owner should be able to open the repository
    /// after the rotation; may be repeated
    #[arg(long = "recipient", value_name = "KEY or FILE")]
    pub recipients: Vec<String>,
    /// A key slot to remove: its secret will not open new data; may be repeated
    #[arg(long, value_name = "SLOT")]
    pub drop: Vec<SlotName>,
    /// The repository with this number; the first one in the configuration is 1 [default: the only one]
    #[arg(long, value_name = "N")]
    pub repo: Option<usize>,
}
