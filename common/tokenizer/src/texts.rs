//! The bytes that each token adds to a text.

use tokenizers::{Decoder as _, DecoderWrapper, NormalizedString, Normalizer as _};

use crate::guard::guarded;
use crate::{Error, Tokenizer, VOCABULARY};

/// Decoded before each token, since the first token of a text may be decoded differently.
const BEFORE: &str = "a";

impl Tokenizer {
    /// For each token id, returns the bytes that the token adds to the text of a completion after its first token;
    /// `None` for stop tokens and special padding tokens, which add nothing, and for unknown ids.
    ///
    /// One token's bytes need not be UTF-8. [`Self::decode_with_ends`] may omit white space at the beginning of a text.
    pub fn token_texts(&self) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let decoder = self.vocabulary.get_decoder();
        if let Some(name) = decoder.and_then(dependent) {
            return Err(Error::Dependent { path: self.folder.clone(), decoder: name });
        }
        let text = |id| {
            let token = self.vocabulary.id_to_token(id).filter(|_| !self.silent_ids.contains(&id));
            token.map(|token| bytes(decoder, &token)).transpose()
        };
        let texts = || (0..self.vocab_size as u32).map(text).collect::<Result<_, _>>();
        guarded(&self.folder, VOCABULARY, texts)?.map_err(|source| Error::Decode { tokens: 1, source })
    }

    /// Returns `text` as tokens spell it: normalised if every token is a sequence of bytes.
    pub fn normalized(&self, text: &str) -> Result<String, Error> {
        let bytewise = matches!(self.vocabulary.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let Some(normalizer) = self.vocabulary.get_normalizer().filter(|_| bytewise) else {
            return Ok(text.to_owned());
        };
        let normalize = || {
            let mut text = NormalizedString::from(text);
            normalizer.normalize(&mut text).map(|()| text.get().to_owned())
        };
        guarded(&self.folder, VOCABULARY, normalize)?
            .map_err(|source| Error::Encode { bytes: text.len(), source })
    }
}

/// Returns the name of a decoder with which a token's bytes depend on its neighbours.
fn dependent(decoder: &DecoderWrapper) -> Option<&'static str> {
    match decoder {
        DecoderWrapper::BPE(_) => Some("BPEDecoder"),
        DecoderWrapper::WordPiece(_) => Some("WordPiece"),
        DecoderWrapper::CTC(_) => Some("CTC"),
        DecoderWrapper::Sequence(parts) => parts.get_decoders().iter().find_map(|part| match part {
            DecoderWrapper::ByteLevel(_) => Some("ByteLevel within a Sequence"),
            part => dependent(part),
        }),
        DecoderWrapper::ByteLevel(_)
        | DecoderWrapper::Metaspace(_)
        | DecoderWrapper::Replace(_)
        | DecoderWrapper::Fuse(_)
        | DecoderWrapper::Strip(_)
        | DecoderWrapper::ByteFallback(_) => None,
    }
}

fn bytes(decoder: Option<&DecoderWrapper>, token: &str) -> tokenizers::Result<Vec<u8>> {
    let Some(decoder) = decoder else { return Ok(format!(" {token}").into_bytes()) };
    if let DecoderWrapper::ByteLevel(_) = decoder {
        let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
        return Ok(bytes.unwrap_or_else(|| token.as_bytes().to_vec()));
    }
    if let Some(byte) = fallback(token).filter(|_| falls_back(decoder)) {
        return Ok(vec![byte]);
    }
    let text = decoder.decode(vec![BEFORE.to_owned(), token.to_owned()])?;
    let added = text.strip_prefix(BEFORE);
    added
        .map(|added| added.as_bytes().to_vec())
        .ok_or_else(|| format!("{token:?} changes the token before it").into())
}

/// Returns the byte of a character in byte-level vocabularies (GPT-2): printable bytes have their own character, the
/// others have those from 256 on, in order.
fn byte_of(character: char) -> Option<u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let code = u32::from(character);
    match u8::try_from(code) {
        Ok(byte) => Some(byte).filter(printable),
        Err(_) => (0..=u8::MAX).filter(|byte| !printable(byte)).nth((code - 256) as usize),
    }
}

fn falls_back(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteFallback(_) => true,
        DecoderWrapper::Sequence(parts) => parts.get_decoders().iter().any(falls_back),
        _ => false,
    }
}

/// Returns the byte of a token such as `<0x0A>`.
fn fallback(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}
