//! Rankers that know nothing of the user, to stand beside every figure.

use std::cmp::Reverse;

use crate::dataset::Catalogue;
use crate::ids::ItemId;

/// `candidates` by how often training users took them. Ties keep the order of the candidate list, which is random.
pub fn by_popularity(candidates: &[ItemId], catalogue: &Catalogue) -> Vec<ItemId> {
    let mut ranking = candidates.to_vec();
    ranking.sort_by_key(|&id| Reverse(catalogue.get(id).map_or(0, |item| item.interactions)));
    ranking
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Item;

    #[test]
    fn popular_items_come_first_and_ties_keep_their_order() {
        let catalogue = Catalogue::new([5, 9, 5].iter().zip(0..).map(|(&interactions, id)| Item {
            id: ItemId(id),
            title: format!("Title {id}"),
            caption: None,
            interactions,
        }));
        let ranking = by_popularity(&[ItemId(2), ItemId(0), ItemId(1)], &catalogue);
        assert_eq!(ranking, [ItemId(1), ItemId(2), ItemId(0)]);
    }
}
