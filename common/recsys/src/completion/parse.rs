//! Parses a completion: the think block, then the list.

use super::form::Form;
use super::parsed::{Expected, Parsed};
use super::{list, thinking};

/// Parses the completion `text`, up to its stop token.
pub fn parse<'a>(text: &'a str, expected: &Expected<'_>) -> Parsed<'a> {
    let block = thinking::split(text, expected.thinking_start, expected.options.require_thinking);
    let list = list::read(text, block.answer, expected);
    let form = block.defect.or(list.defect).unwrap_or(Form::WellFormed);
    Parsed { form, thinking: block.thinking, ranking: list.ranking }
}
