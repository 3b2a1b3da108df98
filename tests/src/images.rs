//! Container images of the programs: each an empty root with one static program, run as user 65532.
//!
//! Written as OCI archives, which `ctr images import` reads; no image builder is needed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

const USER: &str = "65532:65532";
const OCI: &str = "application/vnd.oci.image";

/// Name of the image of one of our programs: what its short name in `manifests/` means to containerd and the kubelet.
/// Nothing is ever pulled from there.
pub fn reference(program: &str) -> String {
    format!("docker.io/library/{program}:{}", env!("CARGO_PKG_VERSION"))
}

/// Where images are kept: `target/images`.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).join("target/images")
}

/// Writes the image of the program, under the name `reference`, into `directory`, unless it is there and newer than the
/// program. Returns its path.
///
/// # Errors
/// The program cannot be read, or the image cannot be written.
pub fn write(program: &Path, reference: &str, directory: &Path) -> Result<PathBuf> {
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let archive = directory.join(format!("{name}.tar"));
    if is_newer(&archive, program) {
        return Ok(archive);
    }
    let layer_file = directory.join(format!("{name}.layer"));
    layer(program, &name, &layer_file).with_context(|| format!("read {}", program.display()))?;
    // A rename at the end: a reader sees a whole image or none.
    let new = archive.with_extension("new");
    archive_of(reference, &name, &layer_file, &new).with_context(|| format!("write {}", archive.display()))?;
    fs::remove_file(&layer_file)?;
    fs::rename(&new, &archive)?;
    Ok(archive)
}

fn is_newer(archive: &Path, program: &Path) -> bool {
    let modified = |path| fs::metadata(path).and_then(|metadata: fs::Metadata| metadata.modified());
    matches!((modified(archive), modified(program)), (Ok(archive), Ok(program)) if archive > program)
}

fn layer(program: &Path, name: &str, file: &Path) -> io::Result<()> {
    let mut layer = Builder::new(File::create(file)?);
    let mut program = File::open(program)?;
    let size = program.metadata()?.len();
    entry(&mut layer, name, 0o555, size, &mut program)?;
    layer.into_inner()?.flush()
}

/// Appends a file that depends on nothing but its arguments, so that the same program gives the same image.
fn entry<W: Write>(tar: &mut Builder<W>, path: &str, mode: u32, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, path, content)
}

fn archive_of(reference: &str, name: &str, layer: &Path, archive: &Path) -> Result<()> {
    let layer_digest = digest(File::open(layer)?)?;
    let layer_size = fs::metadata(layer)?.len();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::to_vec(&json!({
        "architecture": architecture, "os": "linux",
        "config": {"User": USER, "Entrypoint": [format!("/{name}")], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"),
        "config": descriptor("config.v1+json", &digest(config.as_slice())?, config.len() as u64),
        "layers": [descriptor("layer.v1.tar", &layer_digest, layer_size)],
    }))?;
    let mut image = descriptor("manifest.v1+json", &digest(manifest.as_slice())?, manifest.len() as u64);
    let tag = reference.rsplit(':').next().unwrap_or_default();
    image["annotations"] = json!({"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag});
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}.index.v1+json"), "manifests": [image],
    }))?;
    let mut tar = Builder::new(File::create(archive)?);
    let mut file = |path: &str, content: &[u8]| entry(&mut tar, path, 0o444, content.len() as u64, content);
    file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    file("index.json", &index)?;
    file(&blob(&digest(manifest.as_slice())?), &manifest)?;
    file(&blob(&digest(config.as_slice())?), &config)?;
    entry(&mut tar, &blob(&layer_digest), 0o444, layer_size, File::open(layer)?)?;
    tar.into_inner()?.flush()?;
    Ok(())
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": format!("{OCI}.{kind}"), "digest": digest, "size": size})
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn digest(mut content: impl Read) -> Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut content, &mut hash)?;
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_blob_of_an_image_is_there_under_its_digest() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("arb-bot");
        fs::write(&program, b"not really a program").unwrap();
        let archive = write(&program, &reference("arb-bot"), directory.path()).unwrap();
        let mut blobs = 0;
        for file in tar::Archive::new(File::open(&archive).unwrap()).entries().unwrap() {
            let file = file.unwrap();
            let path = file.path().unwrap().to_string_lossy().into_owned();
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(digest(file).unwrap(), format!("sha256:{name}"));
                blobs += 1;
            }
        }
        assert_eq!(blobs, 3, "manifest, config and layer");
    }

    #[test]
    fn the_same_program_gives_the_same_image() {
        let image = || {
            let directory = tempfile::tempdir().unwrap();
            let program = directory.path().join("arb-bot");
            fs::write(&program, b"the same").unwrap();
            fs::read(write(&program, &reference("arb-bot"), directory.path()).unwrap()).unwrap()
        };
        assert!(image() == image());
    }
}
