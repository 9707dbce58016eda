#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

#[test]
fn a_secret_is_open_if_others_can_read_it_and_reach_it() {
    let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let secret = folder.path().join("passphrase");
    fs::write(&secret, "secret").unwrap();
    for (mode, open) in [(0o644, true), (0o604, true), (0o640, false), (0o440, false), (0o600, false), (0o400, false)] {
        fs::set_permissions(&secret, Permissions::from_mode(mode)).unwrap();
        assert_eq!(is_open_to_all(&secret), open, "{mode:o}");
    }
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o750)).unwrap();
    assert!(!is_open_to_all(&secret), "the folder is closed");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    assert!(is_open_to_all(&secret));
    assert!(!is_open_to_all(&folder.path().join("nowhere")));

    // A Secret, as a pod sees it.
    let dated = folder.path().join("..2026_11_29_10_00_00.123");
    fs::create_dir(&dated).unwrap();
    fs::set_permissions(&dated, Permissions::from_mode(0o755)).unwrap();
    fs::rename(&secret, dated.join("passphrase")).unwrap();
    symlink("..2026_11_29_10_00_00.123", folder.path().join("..data")).unwrap();
    symlink("..data/passphrase", &secret).unwrap();
    assert!(!is_open_to_all(&secret));
}
