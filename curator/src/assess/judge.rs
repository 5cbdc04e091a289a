//! The judge: it sees a reasoning and candidates, and ranks them. It sees neither the history nor which is the target.

use podium_recsys::completion::{self, Expected, Form, Layout, ThinkingStart};
use podium_recsys::task::Case;
use podium_recsys::{Catalogue, Item};

use crate::endpoint::Message;

/// As many candidates are listed at most; the target further down counts as not found.
const LONGEST_LIST: usize = 10;

/// What a judge is asked about a case.
pub(super) fn question(case: &Case, reasoning: &str, catalogue: &Catalogue) -> Vec<Message> {
    let line = |item: &Item| match &item.caption {
        Some(caption) => format!("{} {} — {caption}", item.id, item.title),
        None => format!("{} {}", item.id, item.title),
    };
    let candidates: Vec<String> =
        case.candidates.iter().filter_map(|id| catalogue.get(*id)).map(line).collect();
    let instruction = format!(
        "Somebody reasoned about what a user will choose next. Judging by that reasoning alone, list the {} \
         candidates that fit it best, best first, as [ITEM_<id>], one a line, and write nothing else.",
        listed(case)
    );
    let asked = format!("The reasoning:\n{reasoning}\n\nThe candidates:\n{}", candidates.join("\n"));
    vec![Message::system(&instruction), Message::user(&asked)]
}

/// Where a judge's answer ranks the target, from 1; or what is wrong with the answer.
pub(super) fn rank(answer: &str, case: &Case, catalogue: &Catalogue) -> Result<Option<usize>, String> {
    let options =
        completion::Options { list_length: listed(case), layout: Layout::Ids, require_thinking: false };
    // A chat endpoint hands over the whole message of the judge.
    let thinking_start = ThinkingStart::Absent;
    let expected = Expected { options: &options, candidates: &case.candidates, catalogue, thinking_start };
    let parsed = completion::parse(answer, &expected);
    match parsed.form {
        Form::WellFormed => {
            let place = parsed.ranking.iter().position(|listed| listed.item == case.target);
            Ok(place.map(|place| place + 1))
        }
        form => Err(format!(
            "it is no list of {} different candidates as [ITEM_<id>], one a line ({form})",
            options.list_length
        )),
    }
}

fn listed(case: &Case) -> usize {
    case.candidates.len().min(LONGEST_LIST)
}
