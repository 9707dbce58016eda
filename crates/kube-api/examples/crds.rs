//! Writes the CRDs into a folder: `cargo run -p holdfast-kube-api --example crds -- deploy/crds`, or `make crds`.

use holdfast_kube_api::crds;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("name the folder")?);
    std::fs::create_dir_all(&folder)?;
    for definition in crds::all() {
        std::fs::write(folder.join(definition.file), crds::yaml(definition)?)?;
    }
    Ok(())
}
