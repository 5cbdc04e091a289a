//! Held-out users, divided by the training data of their targets: warm if a training interaction contains the
//! target, cold otherwise. The metrics of each part are reported beside those of all users, as `warm/HR@1`
//! and `cold/HR@1`.

use podium_recsys::ranking::Metric;
use podium_recsys::{Catalogue, ItemId};

/// Some of the held-out users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `warm` or `cold`.
    name: &'static str,
    /// Their positions among all evaluated users, in order.
    members: Vec<usize>,
}

/// Returns the warm and the cold users with these targets; empty if all users are of one kind.
pub fn parts(targets: impl IntoIterator<Item = ItemId>, catalogue: &Catalogue) -> Vec<Part> {
    let touched = |item: ItemId| catalogue.get(item).is_some_and(|item| item.interactions > 0);
    let (warm, cold): (Vec<_>, Vec<_>) =
        targets.into_iter().enumerate().partition(|&(_, target)| touched(target));
    if warm.is_empty() || cold.is_empty() {
        return Vec::new();
    }
    [("warm", warm), ("cold", cold)]
        .map(|(name, users)| Part { name, members: users.into_iter().map(|(index, _)| index).collect() })
        .into()
}

impl Part {
    /// Returns their positions among all evaluated users, in order.
    pub fn members(&self) -> &[usize] {
        &self.members
    }

    /// Selects their values from those of all users.
    pub fn of<T: Copy>(&self, all: &[T]) -> Vec<T> {
        self.members.iter().map(|&index| all[index]).collect()
    }

    /// Returns the key of the number of users.
    pub fn users_key(&self) -> String {
        format!("{}/users", self.name)
    }

    /// Returns the prefix of the names of their metrics.
    pub fn prefix(&self) -> String {
        format!("{}/", self.name)
    }

    /// Returns the name of a metric of this part.
    pub fn named(&self, metric: Metric) -> String {
        format!("{}/{metric}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use podium_recsys::Item;

    use super::*;

    fn catalogue() -> Catalogue {
        Catalogue::new([3, 0, 1, 0].iter().zip(0..).map(|(&interactions, id)| Item {
            id: ItemId(id),
            title: format!("Title {id}"),
            caption: None,
            interactions,
        }))
    }

    #[test]
    fn users_are_warm_or_cold_by_their_target() {
        let parts = parts([2, 1, 0, 3, 3].map(ItemId), &catalogue());
        assert_eq!(parts.iter().map(Part::members).collect::<Vec<_>>(), [&[0, 2][..], &[1, 3, 4]]);
        assert_eq!(parts[1].of(&["a", "b", "c", "d", "e"]), ["b", "d", "e"]);
        assert_eq!(
            (parts[0].users_key(), parts[1].named(Metric::Hit(1))),
            ("warm/users".into(), "cold/HR@1".into())
        );
    }

    #[test]
    fn users_of_one_kind_are_not_divided() {
        assert!(parts([0, 2].map(ItemId), &catalogue()).is_empty());
        assert!(parts([1].map(ItemId), &catalogue()).is_empty());
    }
}
