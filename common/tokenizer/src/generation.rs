//! The generation prompt: the text that a chat template writes after the messages.

use crate::{Error, Message, Tokenizer, Variables};

/// Marks the end of the last message's content. Texts do not contain this sequence of private-use characters.
const MARK: &str = "\u{E0F1}\u{F8D3}\u{E0F1}";

impl Tokenizer {
    /// Returns the end of [`Self::render`] that belongs to the completion: the generation prompt, such as
    /// `<|im_start|>assistant\n<think>\n`. It never contains message content.
    ///
    /// It is the text that `add_generation_prompt` appends to the rendered messages. If the template ignores the
    /// variable, or renders the messages differently without it, it is the text after the content of the last message.
    pub fn generation_prompt(&self, messages: &[Message], variables: &Variables) -> Result<String, Error> {
        self.generation_prompt_of(&self.render(messages, variables)?, messages, variables)
    }

    /// Returns the generation prompt of `messages` that were rendered as `prompt` with the same variables: see
    /// [`Self::generation_prompt`].
    pub fn generation_prompt_of(
        &self,
        prompt: &str,
        messages: &[Message],
        variables: &Variables,
    ) -> Result<String, Error> {
        let without = Variables { add_generation_prompt: false, ..variables.clone() };
        // A template may reject a conversation that ends with the user.
        if let Ok(conversation) = self.render(messages, &without)
            && let Some(added) = prompt.strip_prefix(&conversation)
            && !added.is_empty()
        {
            return Ok(added.to_owned());
        }
        let mut marked = messages.to_vec();
        if let Some(last) = marked.last_mut() {
            last.content.push_str(MARK);
        }
        let marked = self.render(&marked, variables)?;
        let tail = marked.rsplit_once(MARK).map(|(_, tail)| tail).filter(|tail| prompt.ends_with(tail));
        Ok(tail.unwrap_or_default().to_owned())
    }
}
