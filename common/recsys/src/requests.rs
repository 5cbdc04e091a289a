//! Requests to the programs of external terms: see [`crate::reward::Request`].

use podium_grpo::GroupId;

use crate::ids::ItemId;
use crate::reward::{External, Item, Request, RequestCompletion};
use crate::task::{Case, Task};

/// Returns the requests of a term for a group with these completions, without ids: well-formed completions in order, at
/// most `batch_size` in a request. The cuts depend on the group alone.
pub fn requests(
    task: &Task,
    term: &External,
    case: &Case,
    group: GroupId,
    completions: &[&str],
) -> Vec<Request> {
    let item = |&id: &ItemId| {
        let known = task.dataset().catalogue.get(id);
        let title = known.map(|item| item.title.clone()).unwrap_or_default();
        Item { id, title, caption: known.and_then(|item| item.caption.clone()) }
    };
    let items = |ids: &[ItemId]| ids.iter().map(item).collect::<Vec<_>>();
    let described = |(index, text): (usize, &&str)| {
        let parsed = task.parse(case, text);
        parsed.form.is_well_formed().then(|| {
            let ranking: Vec<ItemId> = parsed.ranking.iter().map(|listed| listed.item).collect();
            let target_rank = ranking.iter().position(|&item| item == case.target).map(|place| place + 1);
            let reasoning = parsed.thinking.map(str::to_owned);
            RequestCompletion { index, text: (*text).to_owned(), reasoning, ranking, target_rank }
        })
    };
    let described: Vec<RequestCompletion> = completions.iter().enumerate().filter_map(described).collect();
    let request = |completions: &[RequestCompletion]| Request {
        id: String::new(),
        reward: term.name.clone(),
        min: term.min,
        max: term.max,
        step: group.step.0,
        index: group.index,
        attempt: group.attempt,
        user: case.user,
        system: case.prompt.system.clone(),
        prompt: case.prompt.user.clone(),
        history: items(&case.history),
        candidates: items(&case.candidates),
        target: case.target,
        completions: completions.to_vec(),
    };
    described.chunks(term.batch_size.max(1) as usize).map(request).collect()
}
