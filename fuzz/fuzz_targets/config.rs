//! `config.json`: an accepted file has a list of parameters with computable sizes, and is read back as written.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use podium_checkpoint::{Config, parameters};

fuzz_target!(|text: &str| {
    let path = Path::new("config.json");
    let Ok(config) = Config::parse(text, path) else { return };
    let sizes = parameters::list(&config).into_iter().map(|parameter| {
        let size = parameter.shape.iter().try_fold(4_i64, |size, dimension| size.checked_mul(*dimension));
        size.expect("bytes of a parameter")
    });
    sizes.into_iter().try_fold(0_i64, i64::checked_add).expect("bytes of all parameters");
    let written = config.to_json("float32");
    let again = Config::parse(&written, path).expect("a written file is valid");
    assert_eq!(again.to_json("float32"), written);
});
