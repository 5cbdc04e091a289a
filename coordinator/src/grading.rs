//! Checks submitted results and scores training completions before they are stored.

mod border;
mod sampling;

use podium_grpo::options::Credit;
use podium_grpo::{Completion, Group, GroupId, PolicyVersion, RankCredit};
use podium_proto::convert::{Slot, SlotResult};
use podium_proto::v1;
use podium_recsys::reward::ItemReward;
use podium_recsys::task::{Case, Task};

use crate::curriculum::Curriculum;
use crate::results::Results;
pub use border::{Border, Error};
pub use sampling::SamplingByWork;

/// A checked result of a training slot.
#[derive(Debug)]
pub struct Ungraded {
    /// The slot.
    pub id: GroupId,
    /// Its prompt.
    pub case: Case,
    /// The values of the external rewards for each completion; none without external rewards.
    pub external: Vec<Vec<f64>>,
    result: SlotResult,
}

impl Ungraded {
    /// Returns the texts of the completions.
    pub fn texts(&self) -> Vec<&str> {
        self.result.completions.iter().map(|completion| completion.text.as_str()).collect()
    }
}

/// Checked results.
#[derive(Debug, Default)]
pub struct Checked {
    /// Results of training slots.
    pub training: Vec<Ungraded>,
    answers: Vec<(PolicyVersion, u32, v1::Completion)>,
}

/// Checks results.
pub fn check(curriculum: &Curriculum, border: &Border, submitted: Vec<SlotResult>) -> Result<Checked, Error> {
    let mut results = Checked::default();
    for result in submitted {
        let case = border.check(curriculum, &result)?;
        match result.slot {
            Slot::Training(id) => {
                results.training.push(Ungraded { id, case, external: Vec::new(), result });
            }
            Slot::Evaluation { version, index } => {
                // The log-probabilities of held-out answers are not used.
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

/// Scores checked results of training slots under the version that sampled them.
pub fn grade(curriculum: &Curriculum, border: &Border, version: PolicyVersion, checked: Checked) -> Results {
    let Checked { training, answers } = checked;
    let credit = border.sampling().credit();
    let groups = training.into_iter().map(|result| score(curriculum.task(), credit, version, result).into());
    Results { groups: groups.collect(), answers }
}

fn score(task: &Task, credit: Credit, version: PolicyVersion, ungraded: Ungraded) -> Group {
    let Ungraded { id, case, external, result } = ungraded;
    let SlotResult { prompt_ids, completions, .. } = result;
    let mut external = external.into_iter();
    let (mut rewards, mut term_rewards, mut rank_credits) = (Vec::new(), Vec::new(), Vec::new());
    for completion in &completions {
        let grade = task.grade_with(&case, &completion.text, external.next().unwrap_or_default());
        rewards.push(Some(grade.score.total));
        term_rewards.push(grade.score.parts);
        rank_credits.push(match credit {
            Credit::Completion => vec![],
            Credit::Rank => credit_by_rank(grade.item_rewards, completion),
        });
    }
    Group {
        id,
        policy_version: version,
        prompt_ids,
        rank_credits,
        completions,
        reward_terms: task.rewards().names().to_vec(),
        rewards,
        term_rewards,
    }
}

/// Returns the rewards of a completion's listed items, with the tokens that spell each item.
fn credit_by_rank(items: Vec<ItemReward>, completion: &Completion) -> Vec<RankCredit> {
    let mut taken = 0;
    let credit = items.into_iter().map(|ItemReward { span, reward }| {
        // A token that ends one item and begins the next belongs to the first.
        let tokens = completion.tokens_of(&span);
        let start = tokens.start.max(taken);
        taken = tokens.end.max(start);
        RankCredit { tokens: start..taken, reward }
    });
    credit.collect()
}
