//! Made-up results that a coordinator accepts: well-formed completions of a fixed length, with the prompt as the policy's
//! tokenizer and chat template render it.

use std::path::Path;
use std::sync::OnceLock;

use podium_config::RunFile;
use podium_proto::v1;
use podium_recsys::completion::{self, Layout, ThinkingStart};
use podium_tokenizer::{Chat, Variables};

use super::error::{Error, PeerError};

/// Word of the made-up reasoning. It is repeated, and divided evenly among the tokens of the reasoning.
const WORD: &str = "so, ";

/// Makes results of tasks.
#[derive(Debug)]
pub(super) struct Completions {
    chat: Chat,
    vocab_size: u32,
    /// Tokens of a completion.
    tokens: u32,
    /// Whether the chat template opens or closes the think block; known after the first prompt.
    start: OnceLock<ThinkingStart>,
}

impl Completions {
    /// Creates completions of `tokens` tokens for the policy in `folder`.
    pub(super) fn load(run: &RunFile, folder: &Path, tokens: u32) -> Result<Self, Error> {
        let variables = Variables::prompt(run.model.enable_thinking, &run.model.template_variables);
        let chat = Chat::load(folder, variables)?;
        let vocab_size = u32::try_from(chat.tokenizer().vocab_size()).unwrap_or(u32::MAX);
        Ok(Self { chat, vocab_size, tokens, start: OnceLock::new() })
    }

    /// Returns the submission of a lease's results.
    pub(super) fn submission(&self, worker: &str, lease: v1::Lease) -> Result<v1::SubmitRequest, PeerError> {
        let missing = |expected| PeerError::Unexpected { found: "a lease".to_owned(), expected };
        let sampling = lease.sampling.ok_or_else(|| missing("a lease with sampling parameters"))?;
        let result = |task: &v1::Task| self.result(task, &sampling);
        Ok(v1::SubmitRequest {
            activities: Vec::new(),
            worker_id: worker.to_owned(),
            lease_id: lease.lease_id,
            policy_version: lease.policy_version,
            policy_content: lease.policy_content,
            results: lease.tasks.iter().map(result).collect::<Result<_, _>>()?,
        })
    }

    fn result(&self, task: &v1::Task, sampling: &v1::Sampling) -> Result<v1::TaskResult, PeerError> {
        let missing =
            |expected| PeerError::Unexpected { found: "a task without choices or slot".into(), expected };
        let choices = task.choices.as_ref().ok_or_else(|| missing("choices"))?;
        let purpose = match task.purpose.ok_or_else(|| missing("a slot"))? {
            v1::task::Purpose::Training(slot) => v1::task_result::Purpose::Training(slot),
            v1::task::Purpose::Evaluation(slot) => v1::task_result::Purpose::Evaluation(slot),
        };
        let messages = || task.messages.iter().map(|message| (&*message.role, &*message.content));
        let start = if let Some(&start) = self.start.get() {
            start
        } else {
            let start = ThinkingStart::of(&self.chat.generation_prompt(messages())?);
            *self.start.get_or_init(|| start)
        };
        let completion = |sample| self.completion(choices, start, sample, sampling.likelihood.is_some());
        Ok(v1::TaskResult {
            purpose: Some(purpose),
            prompt_ids: self.chat.encode(messages())?,
            completions: (0..sampling.group_size).map(completion).collect::<Result<_, _>>()?,
        })
    }

    /// Returns a completion that reasons and lists the choices from the `sample`-th on.
    fn completion(
        &self,
        choices: &v1::Choices,
        start: ThinkingStart,
        sample: u32,
        with_likelihood: bool,
    ) -> Result<v1::Completion, PeerError> {
        let layout = if choices.lines { Layout::Titled } else { Layout::Ids };
        let (break_line, gap) = completion::white_space(layout);
        let count = choices.items.len().max(1);
        let place = |listed: u32| (sample + listed) as usize % count;
        let items: Vec<&str> =
            (0..choices.count).map(|listed| choices.items[place(listed)].as_str()).collect();
        let list = items.join(break_line);
        // One token for each item, and the stop token.
        let reasoning_tokens =
            if start.is_closed() { 0 } else { self.tokens.saturating_sub(choices.count + 1) };
        let text = if reasoning_tokens > 0 {
            let reasoning = WORD.repeat(reasoning_tokens as usize);
            let whole = format!("<think>{break_line}{}{break_line}</think>{gap}{list}", reasoning.trim_end());
            completion::after(start, &whole, layout)?
        } else {
            completion::after(start, &list, layout)?
        };
        let before = (text.len() - list.len()) as u32;
        let (mut token_ids, mut text_ends, mut allowed) = (Vec::new(), Vec::new(), Vec::new());
        for token in 1..=reasoning_tokens {
            token_ids.push((token * 31 + sample) % self.vocab_size.max(1));
            text_ends.push((u64::from(before) * u64::from(token) / u64::from(reasoning_tokens)) as u32);
        }
        let mut end = before;
        for (listed, item) in items.iter().enumerate() {
            end += item.len() as u32 + if listed > 0 { break_line.len() as u32 } else { 0 };
            let token = place(listed as u32) as u32;
            let position = token_ids.len() as u32;
            allowed.push(v1::Allowed { position, token_ids: (0..count as u32).collect() });
            token_ids.push(token);
            text_ends.push(end);
        }
        token_ids.push(0);
        text_ends.push(end);
        let logprob = |at: u32| ((at * 37 + sample * 13) % 97) as f32 / -97.0;
        Ok(v1::Completion {
            logprobs: (0..token_ids.len() as u32).map(logprob).collect(),
            token_ids,
            text,
            sampled_logprobs: vec![],
            finish_reason: v1::FinishReason::Stop.into(),
            text_ends,
            allowed,
            choice_logprobs: if with_likelihood { vec![-1.0; choices.items.len()] } else { vec![] },
        })
    }
}

#[cfg(test)]
mod tests {
    use podium_grpo::Completion;
    use podium_proto::convert::TryFromMessage;
    use podium_recsys::ItemId;
    use podium_recsys::completion::{Expected, Form, Options, parse};
    use podium_recsys::dataset::Catalogue;

    use super::*;
    use crate::embedded;

    fn completions(tokens: u32) -> Completions {
        let folder = tempfile::tempdir().unwrap();
        embedded::write_start(folder.path()).unwrap();
        let run = RunFile::parse(embedded::RUN_FILE, embedded::RUN_FILE_NAME, &[]).unwrap();
        Completions::load(&run, folder.path(), tokens).unwrap()
    }

    #[test]
    fn completions_are_accepted_and_list_the_choices() {
        let candidates = [4, 7, 1, 9, 3].map(ItemId);
        let starts = [
            ThinkingStart::Absent,
            ThinkingStart::Opened { spaced: true },
            ThinkingStart::Opened { spaced: false },
            ThinkingStart::Closed { spaced: true },
        ];
        for (lines, start) in [false, true].into_iter().flat_map(|lines| starts.map(|start| (lines, start))) {
            let items = candidates.iter().map(ToString::to_string).collect();
            let choices = v1::Choices { items, count: 3, lines, after_thinking: true };
            let message = completions(20).completion(&choices, start, 3, false).unwrap();
            let tokens = if start.is_closed() { 4 } else { 20 };
            assert_eq!(message.token_ids.len(), tokens, "{start:?}");
            let completion = Completion::try_from_message(message).unwrap();
            let options = Options {
                list_length: 3,
                layout: if lines { Layout::Titled } else { Layout::Ids },
                require_thinking: !start.is_closed(),
            };
            let catalogue = Catalogue::default();
            let expected = Expected {
                options: &options,
                candidates: &candidates,
                catalogue: &catalogue,
                thinking_start: start,
            };
            let parsed = parse(&completion.text, &expected);
            let listed: Vec<u64> = parsed.ranking.iter().map(|listed| listed.item.0).collect();
            assert_eq!((parsed.form, listed), (Form::WellFormed, vec![9, 3, 4]), "{:?}", completion.text);
        }
    }
}
