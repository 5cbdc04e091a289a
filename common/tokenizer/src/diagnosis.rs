//! Explains why `tokenizer.json` cannot be read. The library only reports that "data did not match any variant" of an
//! enum; this module names the invalid part of the file.

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
};

/// A part of the file, a test whether it can be read, and the permitted types.
type Part = (&'static str, fn(&Value) -> bool, &'static str);

const PARTS: [Part; 5] = [
    ("model", can_be_read::<ModelWrapper>, "BPE, WordPiece, WordLevel or Unigram"),
    (
        "normalizer",
        can_be_read::<NormalizerWrapper>,
        "BertNormalizer, ByteLevel, Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Precompiled, Prepend, Replace, Sequence, Strip or \
         StripAccents",
    ),
    (
        "pre_tokenizer",
        can_be_read::<PreTokenizerWrapper>,
        "BertPreTokenizer, ByteLevel, CharDelimiterSplit, Digits, FixedLength, Metaspace, Punctuation, Sequence, Split, \
         UnicodeScripts, Whitespace or WhitespaceSplit",
    ),
    (
        "post_processor",
        can_be_read::<PostProcessorWrapper>,
        "BertProcessing, ByteLevel, RobertaProcessing, Sequence or TemplateProcessing",
    ),
    (
        "decoder",
        can_be_read::<DecoderWrapper>,
        "BPEDecoder, ByteFallback, ByteLevel, CTC, Fuse, Metaspace, Replace, Sequence, Strip or WordPiece",
    ),
];

fn can_be_read<T: DeserializeOwned>(part: &Value) -> bool {
    T::deserialize(part).is_ok()
}

/// Returns an error about the first invalid part, or the library's own error.
pub(crate) fn explain(file: &[u8], source: tokenizers::Error) -> tokenizers::Error {
    let Ok(file) = serde_json::from_slice::<Value>(file) else { return source };
    for (name, read, expected) in PARTS {
        let part = file.get(name).unwrap_or(&Value::Null);
        if read(part) || (part.is_null() && name != "model") {
            continue;
        }
        return match part.get("type") {
            Some(kind) => format!(
                "{name} is of type {kind} and cannot be read, expected {expected} with the keys that the library tokenizers \
                 0.22 writes"
            ),
            None => format!("{name} has no type, expected {expected}"),
        }
        .into();
    }
    source
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn explained(file: &Value) -> String {
        let text = file.to_string();
        let source = tokenizers::Tokenizer::from_bytes(text.as_bytes()).unwrap_err();
        explain(text.as_bytes(), source).to_string()
    }

    #[test]
    fn the_invalid_part_is_named() {
        let file = json!({ "version": "1.0", "model": { "type": "WordLevel", "vocab": { "a": 0 }, "unk_token": "a" } });
        assert!(tokenizers::Tokenizer::from_bytes(file.to_string().as_bytes()).is_ok());
        for (part, value, expected) in [
            ("model", json!({ "type": "TikToken", "vocab": {} }), "model is of type \"TikToken\""),
            (
                "model",
                json!({ "type": "BPE", "vocab": 7 }),
                "model is of type \"BPE\" and cannot be read, expected BPE, ",
            ),
            ("model", json!(null), "model has no type"),
            ("pre_tokenizer", json!({ "type": "Magic" }), "pre_tokenizer is of type \"Magic\""),
            ("normalizer", json!({ "type": "Magic" }), "normalizer is of type \"Magic\""),
            ("post_processor", json!({ "type": "Magic" }), "post_processor is of type \"Magic\""),
            ("decoder", json!({ "type": "Magic" }), "decoder is of type \"Magic\""),
        ] {
            let mut file = file.clone();
            file[part] = value;
            let found = explained(&file);
            assert!(found.contains(expected) && !found.contains("variant"), "{found}");
        }
        assert!(!explained(&json!({ "version": "7.0", "model": file["model"] })).contains("model"));
    }
}
