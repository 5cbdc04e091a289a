//! The header of a safetensors file: eight bytes of length, then JSON with the position of each tensor.
//!
//! Every value is checked before use. Independent of models; reads no tensor.

use std::collections::BTreeMap;
use std::fmt::{self, Formatter};

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

/// Maximum length of a header, as in the reference implementation of the format.
const LONGEST: u64 = 100_000_000;

/// The entry that is not a tensor.
const METADATA: &str = "__metadata__";

/// The errors of a header.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Shorter than the length field.
    #[error("the file has {0} bytes, expected at least the 8 of the header's length")]
    TooShort(usize),
    /// The length field points outside the file.
    #[error("the header claims {claimed} bytes, expected at most {available}")]
    Length {
        /// The claimed length.
        claimed: u64,
        /// The available length.
        available: u64,
    },
    /// Invalid JSON, an entry that is not a tensor, or a repeated tensor.
    #[error("the header is malformed")]
    Json(#[source] serde_json::Error),
    /// The type is unsupported.
    #[error("tensor {tensor} has type {found}, expected F32, BF16 or F16")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// Size and shape disagree.
    #[error("tensor {tensor} of shape {shape:?} and type {dtype:?} occupies bytes {begin} to {end}")]
    Size {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Its type.
        dtype: Dtype,
        /// First byte.
        begin: u64,
        /// Byte after the last.
        end: u64,
    },
    /// Tensors overlap or leave a gap.
    #[error("tensor {tensor} begins at byte {begin}, expected {expected}, the end of the previous tensor")]
    Offset {
        /// The tensor.
        tensor: String,
        /// Its first byte.
        begin: u64,
        /// The end of the previous tensor.
        expected: u64,
    },
    /// The tensors and the file end at different positions.
    #[error(
        "the tensors end at byte {tensors}, the file's data at {file}: truncated, or not a safetensors file"
    )]
    End {
        /// End of the last tensor.
        tensors: u64,
        /// End of the data.
        file: u64,
    },
}

/// Type of the numbers of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// float32
    F32,
    /// bfloat16
    BF16,
    /// float16
    F16,
}

impl Dtype {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "F32" => Some(Self::F32),
            "BF16" => Some(Self::BF16),
            "F16" => Some(Self::F16),
            _ => None,
        }
    }

    /// The name in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::BF16 => "BF16",
            Self::F16 => "F16",
        }
    }

    /// Bytes of one number.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::BF16 | Self::F16 => 2,
        }
    }
}

/// Type, shape and position of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Type of its numbers.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// First byte and byte after the last, from the beginning of the file.
    pub range: (u64, u64),
}

/// An unchecked entry of the file.
#[derive(Deserialize)]
struct Claim {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The unchecked entries of the file. Errors name the tensor.
struct Claims(BTreeMap<String, Claim>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Claims;

            fn expecting(&self, formatter: &mut Formatter) -> fmt::Result {
                formatter.write_str("an entry for each tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = BTreeMap::new();
                while let Some(tensor) = map.next_key::<String>()? {
                    if tensor == METADATA {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let claim = map
                        .next_value()
                        .map_err(|error| A::Error::custom(format_args!("tensor {tensor}: {error}")))?;
                    if claims.contains_key(&tensor) {
                        return Err(A::Error::custom(format_args!("tensor {tensor} is listed twice")));
                    }
                    claims.insert(tensor, claim);
                }
                Ok(Claims(claims))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// Size of that many numbers in bytes; `None` on overflow.
fn size(shape: &[u64], dtype: Dtype) -> Option<u64> {
    shape.iter().try_fold(dtype.bytes(), |size, dimension| size.checked_mul(*dimension))
}

/// Reads the header of a file. The entries cover the rest of the file without overlap or gap.
pub fn parse(file: &[u8]) -> Result<BTreeMap<String, Entry>, Error> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(Error::TooShort(file.len()));
    };
    let (claimed, available) = (u64::from_le_bytes(*length), (rest.len() as u64).min(LONGEST));
    if claimed > available {
        return Err(Error::Length { claimed, available });
    }
    let (header, data) = rest.split_at(claimed as usize);
    let claims: Claims = serde_json::from_slice(header).map_err(Error::Json)?;

    let mut entries = BTreeMap::new();
    for (tensor, claim) in claims.0 {
        let Some(dtype) = Dtype::parse(&claim.dtype) else {
            return Err(Error::Dtype { tensor, found: claim.dtype });
        };
        let ((begin, end), shape) = (claim.data_offsets, claim.shape);
        if size(&shape, dtype).is_none_or(|size| begin.checked_add(size) != Some(end)) {
            return Err(Error::Size { tensor, shape, dtype, begin, end });
        }
        entries.insert(tensor, Entry { dtype, shape, range: (begin, end) });
    }

    let mut by_range: Vec<_> = entries.iter_mut().collect();
    by_range.sort_by_key(|(_, entry)| entry.range);
    let (data_length, data_begin) = (data.len() as u64, 8 + claimed);
    let mut expected = 0;
    for (tensor, entry) in by_range {
        let (begin, end) = entry.range;
        if begin != expected {
            return Err(Error::Offset { tensor: tensor.clone(), begin, expected });
        }
        expected = end;
        if end > data_length {
            return Err(Error::End { tensors: end, file: data_length });
        }
        entry.range = (data_begin + begin, data_begin + end);
    }
    if expected != data_length {
        return Err(Error::End { tensors: expected, file: data_length });
    }
    Ok(entries)
}

/// A tensor to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Type of its numbers.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<i64>,
}

impl TensorInfo {
    /// Size of its numbers in bytes.
    pub fn size(&self) -> u64 {
        self.shape.iter().product::<i64>() as u64 * self.dtype.bytes()
    }
}

/// Returns the bytes before the data of a file with these tensors in order.
pub fn format(tensors: &[&TensorInfo]) -> Vec<u8> {
    // Transformers writes this entry and requires it.
    let mut header = Map::from_iter([(METADATA.to_owned(), json!({ "format": "pt" }))]);
    let mut begin = 0;
    for tensor in tensors {
        let end = begin + tensor.size();
        let entry =
            json!({ "dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [begin, end] });
        header.insert(tensor.name.clone(), entry);
        begin = end;
    }
    let mut text = Value::Object(header).to_string();
    // Data aligned to eight bytes, as in the reference implementation.
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.into_bytes());
    bytes
}
