//! The candidates of a ranking of the whole catalogue.

use podium_grpo::rng::Stream;

use crate::dataset::{Catalogue, User};
use crate::ids::ItemId;

/// Returns the target of a held-out user and all items outside the user's whole history, in an order that depends on the
/// seed and the user alone. Rankers break ties by this order.
pub fn outside_history(catalogue: &Catalogue, user: &User, seed: u64) -> Vec<ItemId> {
    let mut known = user.items.clone();
    known.sort_unstable();
    let outside = |id: &ItemId| *id == user.target() || known.binary_search(id).is_err();
    let mut list: Vec<ItemId> = catalogue.items().iter().map(|item| item.id).filter(outside).collect();
    Stream::new(seed, "baselines/catalogue", &[user.id.0]).shuffle(&mut list);
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Item;
    use crate::ids::UserId;

    #[test]
    fn candidates_are_the_target_and_all_items_outside_the_history() {
        let catalogue = Catalogue::new((0..9).map(|id| Item {
            id: ItemId(id),
            title: format!("Title {id}"),
            caption: None,
            interactions: 0,
        }));
        let user =
            |id, items: &[u64]| User { id: UserId(id), items: items.iter().copied().map(ItemId).collect() };
        let mut list = outside_history(&catalogue, &user(1, &[3, 5, 7, 5]), 0);
        assert_eq!(
            list,
            outside_history(&catalogue, &user(1, &[5, 7, 3, 5]), 0),
            "only the user and the seed matter"
        );
        assert_ne!(list, outside_history(&catalogue, &user(1, &[3, 5, 7, 5]), 1));
        list.sort_unstable();
        assert_eq!(list, [0, 1, 2, 4, 5, 6, 8].map(ItemId), "a repeated target is a candidate");
    }
}
