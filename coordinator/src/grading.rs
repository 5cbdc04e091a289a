//! From submitted results to what is stored: they are checked, and training completions are scored.

mod border;
mod sampling;

use podium_grpo::options::Credit;
use podium_grpo::{Completion, Group, GroupId, PolicyVersion, RankCredit};
use podium_proto::convert::{Slot, SlotResult};
use podium_proto::v1;
use podium_recsys::ItemId;
use podium_recsys::diagnostics::Answer;
use podium_recsys::reward::ItemReward;
use podium_recsys::task::{Case, Grade, Task};

use crate::curriculum::Curriculum;
use crate::results::Results;
pub use border::{Border, Error};
pub use sampling::Sampling;

/// Checks results and scores those of training slots under the version that sampled them.
pub fn grade(
    curriculum: &Curriculum,
    border: &Border,
    version: PolicyVersion,
    submitted: Vec<SlotResult>,
) -> Result<Results, Error> {
    let mut results = Results::default();
    for result in submitted {
        let case = border.check(curriculum, &result)?;
        match result.slot {
            Slot::Training(id) => {
                let task = curriculum.task();
                results
                    .groups
                    .push(score(task, border.sampling().credit(), id, version, &case, result).into());
            }
            Slot::Evaluation { version, index } => {
                // Log-probabilities of held-out answers are nobody's input.
                let choice_logprobs = result.choice_logprobs.into_iter().next().unwrap_or_default();
                let answer = result.completions.into_iter().next().map(|mut completion| {
                    completion.logprobs.clear();
                    completion.sampled_logprobs = None;
                    completion.allowed.clear();
                    v1::Completion { choice_logprobs, ..completion.into() }
                });
                results.answers.extend(answer.map(|answer| (version, index, answer)));
            }
        }
    }
    Ok(results)
}

fn score(
    task: &Task,
    credit: Credit,
    id: GroupId,
    version: PolicyVersion,
    case: &Case,
    result: SlotResult,
) -> Group {
    let SlotResult { prompt_ids, completions, .. } = result;
    let scores: Vec<_> =
        completions.iter().map(|completion| task.grade(case, &completion.text).score).collect();
    let rank_credits = completions.iter().map(|completion| match credit {
        Credit::Completion => vec![],
        Credit::Rank => rank_credits(task, case, completion),
    });
    Group {
        id,
        policy_version: version,
        prompt_ids,
        rank_credits: rank_credits.collect(),
        completions,
        reward_terms: task.rewards().names().to_vec(),
        rewards: scores.iter().map(|score| Some(score.total)).collect(),
        term_rewards: scores.into_iter().map(|score| score.parts).collect(),
    }
}

/// What each listed item of a completion earns, with the tokens that write it.
fn rank_credits(task: &Task, case: &Case, completion: &Completion) -> Vec<RankCredit> {
    let mut taken = 0;
    let items = task.item_rewards(case, &completion.text).into_iter();
    let credit = items.map(|ItemReward { span, reward }| {
        // A token that ends one item and begins the next is the first one's.
        let tokens = completion.tokens_of(&span);
        let start = tokens.start.max(taken);
        taken = tokens.end.max(start);
        RankCredit { tokens: start..taken, reward }
    });
    credit.collect()
}

/// What a completion says and earns.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Its shape, where it ranks the target, and its score.
    pub grade: Grade,
    /// The items that it lists, best first.
    pub ranking: Vec<ItemId>,
}

impl From<Reading> for Answer {
    fn from(Reading { grade, ranking }: Reading) -> Self {
        let Grade { outcome, score } = grade;
        Self { form: outcome.form, rank: outcome.scored_rank(), ranking, reward: score.total }
    }
}

/// Reads a completion the way it was graded.
pub fn read(task: &Task, case: &Case, text: &str) -> Reading {
    let ranking = task.parse(case, text).ranking.iter().map(|listed| listed.item).collect();
    Reading { grade: task.grade(case, text), ranking }
}
