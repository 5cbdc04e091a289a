//! Extracts the answer from generated text: the text after the reasoning, without chat template tokens left in by the
//! server.

/// Reasoning tags that servers leave in the text. The opening one may be missing, since templates write it in the
/// prompt.
const THINKING: [(&str, &str); 9] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
];

/// Harmony's channels (gpt-oss): reasoning is in `analysis` and `commentary`, the answer in `final`.
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
/// The same without the special tokens, which some servers remove.
const BARE_ANALYSIS: &str = "analysis";
const BARE_FINAL: &str = "assistantfinal";

/// Tokens at the beginning of a turn.
const BEGINNINGS: [&str; 12] = [
    "<|im_start|>assistant",
    "<|im_start|>",
    "<|start_header_id|>assistant<|end_header_id|>",
    "<|begin_of_text|>",
    "<|start|>assistant",
    "<start_of_turn>model",
    "<|assistant|>",
    "<|START_RESPONSE|>",
    "<|begin_of_solution|>",
    "[/INST]",
    "<bos>",
    "<s>",
];
/// Tokens that end a turn; the text after them is not part of the answer.
const ENDS: [&str; 21] = [
    "<|start|>",
    "<|call|>",
    "<|im_end|>",
    "<|im_start|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|start_header_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "<|user|>",
    "<|END_RESPONSE|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_solution|>",
    "<end_of_turn>",
    "<start_of_turn>",
    "<｜end▁of▁sentence｜>",
    "[INST]",
    "<eos>",
    "</s>",
];

/// Returns the answer in a text; `None` if there is only reasoning and special tokens.
pub(super) fn of(text: &str) -> Option<&str> {
    let mut answer = after_channels(text.trim())?;
    for (open, close) in THINKING {
        if let Some((_, after)) = answer.rsplit_once(close) {
            answer = after;
        }
        // Reasoning that does not end.
        answer = answer.split_once(open).map_or(answer, |(before, _)| before);
    }
    answer = answer.trim();
    while let Some(rest) = BEGINNINGS.iter().find_map(|mark| answer.strip_prefix(mark)) {
        answer = rest.trim_start();
    }
    let end = ENDS.iter().filter_map(|mark| answer.find(mark)).min().unwrap_or(answer.len());
    Some(answer[..end].trim()).filter(|answer| !answer.is_empty())
}

/// Returns the content of the last final channel, or the whole text without channels; `None` if there are only others.
fn after_channels(text: &str) -> Option<&str> {
    if text.contains(CHANNEL) {
        let finals = text.rsplit(CHANNEL).filter_map(|channel| channel.trim_start().strip_prefix("final"));
        return finals.filter_map(|channel| channel.split_once(MESSAGE)).map(|(_, answer)| answer).next();
    }
    match text.strip_prefix(BARE_ANALYSIS).and_then(|rest| rest.rsplit_once(BARE_FINAL)) {
        Some((_, answer)) => Some(answer),
        None => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reasoning_and_special_tokens_are_removed() {
        for (text, expected) in [
            ("<think>so</think> \n yes", Some("yes")),
            ("so it is</think>yes", Some("yes")),
            ("<think>one</think><think>two</think>yes", Some("yes")),
            ("yes\n<think>was that right?", Some("yes")),
            ("<think>so it", None),
            ("[THINK]so[/THINK]yes", Some("yes")),
            ("[THINK]so", None),
            ("<thinking>so</thinking>\nyes", Some("yes")),
            ("◁think▷so◁/think▷yes", Some("yes")),
            (
                "<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>final<|message|>yes<|return|>",
                Some("yes"),
            ),
            ("<|channel|>analysis<|message|>so it is", None),
            ("<|channel|>final <|constrain|>json<|message|>yes", Some("yes")),
            ("analysisWe need one word.assistantfinalyes", Some("yes")),
            ("analysis of the picture", Some("analysis of the picture")),
            ("yes<|im_end|>", Some("yes")),
            ("yes<|im_end|>\n<|im_start|>user\nmore", Some("yes")),
            ("<|im_start|>assistant\nyes<|eot_id|>", Some("yes")),
            ("<s> yes</s>", Some("yes")),
            ("</s>", None),
            ("", None),
            ("a < b and c </b> d", Some("a < b and c </b> d")),
        ] {
            assert_eq!(of(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn answers_contain_no_special_tokens(text in "(<think>|</think>|\\[THINK\\]|\\[/THINK\\]|<\\|channel\\|>|final|<\\|message\\|>|</s>|<\\|im_end\\|>|a|é){0,12}") {
            if let Some(answer) = of(&text) {
                for mark in ["<think>", "</think>", "[THINK]", "[/THINK]", "</s>", "<|im_end|>"] {
                    prop_assert!(!answer.contains(mark), "{} in {}", mark, answer);
                }
            }
        }
    }
}
