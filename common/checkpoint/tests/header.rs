//! Headers of safetensors files: written headers are read back, and invalid ones are refused with the tensor's name.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::error::Error as _;

use podium_checkpoint::header::{self, Error};
use podium_checkpoint::{Dtype, TensorInfo};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A file with this header and `data` bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

/// The error of a file with these entries and 32 bytes of data.
fn error(entries: &Value) -> Error {
    header::parse(&file(&entries.to_string(), 32)).unwrap_err()
}

fn floats(shape: &[u64], offsets: [u64; 2]) -> Value {
    json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets })
}

#[test]
fn tensors_are_adjacent_in_any_order() {
    let entries = json!({
        "__metadata__": { "format": "pt" },
        "late": floats(&[3, 2], [8, 32]),
        "empty": floats(&[0, 7], [8, 8]),
        "early": floats(&[2], [0, 8]),
    });
    let file = file(&entries.to_string(), 32);
    let begin = file.len() as u64 - 32;
    let found = header::parse(&file).unwrap();
    assert_eq!(found["early"].range, (begin, begin + 8));
    assert_eq!(found["empty"].range, (begin + 8, begin + 8));
    assert_eq!((found["late"].range, found["late"].dtype), ((begin + 8, begin + 32), Dtype::F32));
    assert_eq!(found.len(), 3);
}

#[test]
fn absurd_lengths_are_refused() {
    assert!(matches!(header::parse(&[]), Err(Error::TooShort(0))));
    assert!(matches!(header::parse(&[0; 7]), Err(Error::TooShort(7))));
    let mut file = file("{}", 0);
    file[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(header::parse(&file), Err(Error::Length { claimed: u64::MAX, available: 2 })));
    let error = header::parse(&file).unwrap_err().to_string();
    assert_eq!(error, "the header claims 18446744073709551615 bytes, expected at most 2");
}

#[test]
fn gaps_and_overlaps_are_refused() {
    let overlap = error(&json!({ "a": floats(&[4], [0, 16]), "b": floats(&[6], [8, 32]) }));
    assert!(
        matches!(&overlap, Error::Offset { tensor, begin: 8, expected: 16 } if tensor == "b"),
        "{overlap}"
    );
    let same = error(&json!({ "a": floats(&[8], [0, 32]), "b": floats(&[8], [0, 32]) }));
    assert!(matches!(&same, Error::Offset { tensor, begin: 0, expected: 32 } if tensor == "b"), "{same}");
    let hole = error(&json!({ "a": floats(&[1], [0, 4]), "b": floats(&[6], [8, 32]) }));
    assert!(matches!(&hole, Error::Offset { tensor, begin: 8, expected: 4 } if tensor == "b"), "{hole}");
    let truncated = error(&json!({ "a": floats(&[9], [0, 36]) }));
    assert!(matches!(truncated, Error::End { tensors: 36, file: 32 }), "{truncated}");
    let appended = error(&json!({ "a": floats(&[7], [0, 28]) }));
    assert!(matches!(appended, Error::End { tensors: 28, file: 32 }), "{appended}");
    assert!(matches!(error(&json!({})), Error::End { tensors: 0, file: 32 }));
}

#[test]
fn bytes_that_differ_from_shape_and_type_are_refused() {
    for entry in [
        floats(&[2, 2], [0, 32]),
        floats(&[8], [32, 0]),
        floats(&[8], [u64::MAX, 31]),
        floats(&[1 << 62, 8], [0, 32]),
        floats(&[1 << 32, 1 << 32], [0, 0]),
        json!({ "dtype": "BF16", "shape": [8], "data_offsets": [0, 32] }),
    ] {
        let error = error(&json!({ "a.weight": entry }));
        assert!(matches!(&error, Error::Size { tensor, .. } if tensor == "a.weight"), "{error}");
    }
    let text = error(&json!({ "a.weight": floats(&[2, 2], [0, 32]) })).to_string();
    assert_eq!(text, "tensor a.weight of shape [2, 2] and type F32 occupies bytes 0 to 32");
}

#[test]
fn other_types_are_refused_by_name() {
    for dtype in ["F64", "I64", "F8_E4M3", "F4", "U8", "bf16"] {
        let error = error(&json!({ "a": { "dtype": dtype, "shape": [4], "data_offsets": [0, 32] } }));
        assert!(
            matches!(&error, Error::Dtype { tensor, found } if tensor == "a" && found == dtype),
            "{error}"
        );
    }
}

#[test]
fn malformed_entries_are_refused_by_name() {
    let entry = floats(&[8], [0, 32]).to_string();
    for (header, culprit) in [
        (format!(r#"{{"a.weight":{entry},"b":{entry},"a.weight":{entry}}}"#), "a.weight"),
        (r#"{"a.weight":{"dtype":"F32","shape":[-1],"data_offsets":[0,32]}}"#.to_owned(), "a.weight"),
        (r#"{"a.weight":{"dtype":"F32","shape":8,"data_offsets":[0,32]}}"#.to_owned(), "a.weight"),
        (r#"{"a.weight":{"dtype":"F32","shape":[8],"data_offsets":[0]}}"#.to_owned(), "a.weight"),
        (r#"{"a.weight":{"shape":[8],"data_offsets":[0,32]}}"#.to_owned(), "dtype"),
        (r#"{"a.weight":null}"#.to_owned(), "a.weight"),
        ("[]".to_owned(), "an entry for each tensor"),
        ("]]]]".to_owned(), "line 1"),
        ("{} {}".to_owned(), "line 1"),
    ] {
        let error = header::parse(&file(&header, 32)).unwrap_err();
        assert!(matches!(error, Error::Json(_)));
        let source = error.source().unwrap().to_string();
        assert!(source.contains(culprit), "{header}: {source}");
    }
}

fn tensors() -> impl Strategy<Value = Vec<TensorInfo>> {
    let dtype = prop_oneof![Just(Dtype::F32), Just(Dtype::BF16), Just(Dtype::F16)];
    let tensor = (dtype, prop::collection::vec(0_i64..5, 0..4));
    prop::collection::btree_map(any::<String>(), tensor, 0..6).prop_map(|tensors| {
        let named = tensors.into_iter().filter(|(name, _)| name != "__metadata__");
        named.map(|(name, (dtype, shape))| TensorInfo { name, dtype, shape }).collect()
    })
}

proptest! {
    #[test]
    fn written_headers_are_read_back(tensors in tensors()) {
        let mut file = header::format(&tensors.iter().collect::<Vec<_>>());
        prop_assert_eq!(file.len() % 8, 0);
        let mut offset = file.len() as u64;
        file.resize(file.len() + tensors.iter().map(TensorInfo::size).sum::<u64>() as usize, 0);
        let found = header::parse(&file).unwrap();
        prop_assert_eq!(found.len(), tensors.len());
        for tensor in tensors {
            let entry = &found[&tensor.name];
            prop_assert_eq!(entry.range, (offset, offset + tensor.size()));
            prop_assert_eq!(entry.dtype, tensor.dtype);
            prop_assert!(entry.shape.iter().map(|size| *size as i64).eq(tensor.shape));
            offset = entry.range.1;
        }
    }

    #[test]
    fn a_changed_byte_never_panics(tensors in tensors(), offset in any::<prop::sample::Index>(), byte: u8) {
        let mut file = header::format(&tensors.iter().collect::<Vec<_>>());
        let offset = offset.index(file.len());
        file[offset] = byte;
        let _ = header::parse(&file);
    }
}
