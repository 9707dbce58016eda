//! Images for pods: assembled from layers as archives in the form of `docker save`, and loaded into a node.
//!
//! An archive contains one or several images: a configuration for each, layers that they may share, and `manifest.json`
//! with the names. A configuration names its layers by the SHA-256 of their archives, and containerd checks it. There
//! is no registry, so pods use `imagePullPolicy: IfNotPresent` (the default for a tag other than `latest`) or `Never`.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::json;

use super::layout::Layout;
use super::tools::run;
use crate::error::{KitError, Result};

/// The image of the container that holds a pod's network.
pub const PAUSE: &str = "holdfast.test/pause:1";
/// PostgreSQL 18 with all its programs on a minimal Debian, with user 26, as in the images of CloudNativePG.
pub const POSTGRESQL_18: &str = "holdfast.test/postgresql:18";
/// PostgreSQL 15 from Debian.
pub const POSTGRESQL_15: &str = "holdfast.test/postgresql:15";
/// The program `holdfast` of this build at `/usr/local/bin/holdfast`, on the same Debian.
pub const HOLDFAST: &str = "holdfast.test/holdfast:dev";

/// Public names of images. Users' manifests that name them run on the bed unchanged.
const RELEASED_AS: [(&str, &str); 3] = [
    (POSTGRESQL_18, "ghcr.io/cloudnative-pg/postgresql:18"),
    (POSTGRESQL_15, "ghcr.io/cloudnative-pg/postgresql:15"),
    (HOLDFAST, concat!("ghcr.io/holdfast/holdfast:", env!("CARGO_PKG_VERSION"))),
];

/// All names of an image.
fn names(name: &str) -> Vec<&str> {
    let released = RELEASED_AS.iter().filter(|(own, _)| *own == name).map(|(_, released)| *released);
    std::iter::once(name).chain(released).collect()
}

/// An image to put into an archive.
#[derive(Clone, Debug)]
pub(crate) struct Image<'a> {
    /// Its name with its tag.
    pub(crate) name: &'a str,
    /// The archives of its layers, the lowest first.
    pub(crate) layers: Vec<PathBuf>,
    /// The user its processes run as; empty for root.
    pub(crate) user: &'a str,
    /// The program that starts if a pod names none.
    pub(crate) entrypoint: &'a [&'a str],
    /// Folders that are searched for programs before the usual ones.
    pub(crate) path: &'a str,
}

/// The images of every bed.
pub(crate) fn standard(layout: &Layout) -> Vec<Image<'static>> {
    let postgresql = |name, layer: &str, path| Image {
        name,
        layers: vec![layout.layer("debian"), layout.layer(layer)],
        user: "26:26",
        entrypoint: &[],
        path,
    };
    vec![
        Image {
            name: PAUSE,
            layers: vec![layout.layer("pause")],
            user: "65535:65535",
            entrypoint: &["/pause"],
            path: "",
        },
        postgresql(POSTGRESQL_18, "postgresql-18", "/usr/lib/postgresql/18/bin:"),
        postgresql(POSTGRESQL_15, "postgresql-15", "/usr/lib/postgresql/15/bin:"),
    ]
}

/// The image [`HOLDFAST`] with this layer.
pub(crate) fn holdfast(layout: &Layout, layer: PathBuf) -> Image<'static> {
    Image {
        name: HOLDFAST,
        layers: vec![layout.layer("debian"), layer],
        user: "",
        entrypoint: &["/usr/local/bin/holdfast"],
        path: "",
    }
}

/// A short name for the sources of these images: the same layers give the same key.
pub(crate) fn key(images: &[Image<'_>]) -> Result<String> {
    let mut context = Context::new(&SHA256);
    for image in images {
        context.update(configuration(image, &[]).to_string().as_bytes());
        context.update(names(image.name).join(" ").as_bytes());
        for layer in &image.layers {
            let found = fs::metadata(layer).map_err(KitError::io(format!("look at {}", layer.display())))?;
            let modified = found.modified().map_err(KitError::io(format!("look at {}", layer.display())))?;
            context.update(format!("{} {} {modified:?}", layer.display(), found.len()).as_bytes());
        }
    }
    Ok(hex::encode(context.finish())[..12].to_owned())
}

/// Writes an archive with these images, assembled in a folder beside it.
pub(crate) fn write_archive(images: &[Image<'_>], archive: &Path) -> Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("image-")
        .tempdir_in(archive.parent().unwrap_or(Path::new("/tmp")))
        .map_err(KitError::io("make a folder for an image"))?;
    let mut manifest = Vec::new();
    for image in images {
        let mut digests = Vec::new();
        let mut layers = Vec::new();
        for layer in &image.layers {
            let digest = sha256(layer)?;
            let name = format!("{digest}.tar");
            let link = folder.path().join(&name);
            if !link.exists() {
                std::os::unix::fs::symlink(layer, &link).map_err(KitError::io(format!("link {}", link.display())))?;
            }
            layers.push(name);
            digests.push(digest);
        }
        let text = configuration(image, &digests).to_string();
        let mut context = Context::new(&SHA256);
        context.update(text.as_bytes());
        let file = format!("{}.json", hex::encode(context.finish()));
        let path = folder.path().join(&file);
        fs::write(&path, text).map_err(KitError::io(format!("write {}", path.display())))?;
        manifest.push(json!({"Config": file, "RepoTags": names(image.name), "Layers": layers}));
    }
    let path = folder.path().join("manifest.json");
    let text = serde_json::Value::from(manifest).to_string();
    fs::write(&path, text).map_err(KitError::io(format!("write {}", path.display())))?;
    let mut tar = Command::new("tar");
    tar.args(["--dereference", "--numeric-owner", "-cf"]).arg(archive).arg("-C").arg(folder.path()).arg(".");
    run(tar.args(["--transform", r"s#^\./##"])).map(drop)
}

/// Makes the layer with a program at `/usr/local/bin`, without its symbols, which are nine tenths of its size.
pub(crate) fn program_layer(program: &Path, name: &str, layer: &Path) -> Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("layer-")
        .tempdir_in(layer.parent().unwrap_or(Path::new("/tmp")))
        .map_err(KitError::io("make a folder for a layer"))?;
    let target = folder.path().join("usr/local/bin");
    fs::create_dir_all(&target).map_err(KitError::io(format!("make {}", target.display())))?;
    let target = target.join(name);
    run(Command::new("strip").arg("-o").arg(&target).arg(program))?;
    run(Command::new("chmod").arg("0755").arg(&target))?;
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--owner=0", "--group=0", "-cf"]).arg(layer).arg("-C").arg(folder.path());
    run(tar.arg("usr")).map(drop)
}

fn configuration(image: &Image<'_>, digests: &[String]) -> serde_json::Value {
    let digests: Vec<String> = digests.iter().map(|digest| format!("sha256:{digest}")).collect();
    json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {
            "User": image.user,
            "Entrypoint": image.entrypoint,
            "Env": [
                format!("PATH={}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", image.path),
                "LANG=C.UTF-8",
            ],
        },
        "rootfs": {"type": "layers", "diff_ids": digests},
    })
}

fn sha256(file: &Path) -> Result<String> {
    let failed = || KitError::io(format!("read {}", file.display()));
    let mut source = fs::File::open(file).map_err(failed())?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = source.read(&mut buffer).map_err(failed())?;
        if length == 0 {
            return Ok(hex::encode(context.finish()));
        }
        context.update(&buffer[..length]);
    }
}
