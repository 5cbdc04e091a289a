//! Users that reasoning may be about: training users that are in no held-out part.

use podium_grpo::rng::Stream;
use podium_recsys::{Dataset, User};

/// Returns the training users that are not held out, in file order; with `at_most`, a random sample of that size,
/// keyed by `seed`. A larger sample contains every smaller one.
pub(crate) fn training(dataset: &Dataset, at_most: Option<usize>, seed: u64) -> Vec<&User> {
    let only_trained = dataset.only_trained();
    let mut users: Vec<(u64, usize, &User)> = dataset
        .train
        .iter()
        .enumerate()
        .filter(|(_, user)| only_trained.contains(&user.id))
        .map(|(position, user)| (Stream::new(seed, "curator/users", &[user.id.0]).next_u64(), position, user))
        .collect();
    if let Some(at_most) = at_most {
        users.sort_unstable_by_key(|(number, position, _)| (*number, *position));
        users.truncate(at_most);
        users.sort_unstable_by_key(|(_, position, _)| *position);
    }
    users.into_iter().map(|(_, _, user)| user).collect()
}
