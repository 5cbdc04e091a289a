//! The header of a safetensors file: any bytes, and any text as a header of the right length before some data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podium_checkpoint::header;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    if let Some((data, text)) = bytes.split_first() {
        let mut file = (text.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(text);
        file.resize(file.len() + usize::from(*data), 0);
        check(&file);
    }
});

/// Accepted tensors are inside the file, and no two share a byte.
fn check(file: &[u8]) {
    let Ok(entries) = header::parse(file) else { return };
    let mut ranges: Vec<_> = entries.values().map(|entry| entry.range).collect();
    ranges.sort_unstable();
    assert!(ranges.iter().all(|(begin, end)| begin <= end && *end <= file.len() as u64));
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
}
