//! Compiles proto/v1 with protox, which requires no installed protoc.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=v1");
    let descriptors = protox::compile(["v1/podium.proto"], ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        .file_descriptor_set_path(out.join("podium.v1.descriptors"))
        .btree_map(".")
        .compile_fds(descriptors.clone())?;
    // compile_fds leaves writing the descriptors to protoc; reflection needs them.
    std::fs::write(out.join("podium.v1.descriptors"), prost::Message::encode_to_vec(&descriptors))?;
    Ok(())
}
