//! Final check of a request before it is sent: it must not reveal the target.
//!
//! Requests are built from a user's history, which ends before the target; the functions that write them do not receive
//! the target. This check covers other leaks: a history with additional data, or a draft written with knowledge of the
//! target.

use podium_recsys::{Item, ItemId, UserId};

use crate::endpoint::Message;
use crate::naming::names;
use crate::wording::{folded, says};

/// A request that reveals the target.
#[derive(Debug, thiserror::Error)]
#[error("the request for {user} would contain the {what} of {target}, which is the target: it was not sent")]
pub(crate) struct Error {
    user: UserId,
    target: ItemId,
    what: &'static str,
}

/// Checks a request about `user`. Text that also occurs in `known` (records of the history, instructions) is not
/// specific to the target.
pub(crate) fn check(user: UserId, target: &Item, messages: &[Message], known: &[&str]) -> Result<(), Error> {
    let request: Vec<String> = messages.iter().map(Message::words).collect();
    let gives_away = |found: &dyn Fn(&str) -> bool| {
        request.iter().any(|text| found(text)) && !known.iter().any(|text| found(text))
    };
    let token = folded(&target.id.to_string());
    let caption = target.caption.as_deref().filter(|caption| !caption.is_empty());
    let what = if gives_away(&|text| folded(text).contains(&token)) {
        "number"
    } else if gives_away(&|text| names(text, &target.title)) {
        "title"
    } else if caption.is_some_and(|caption| gives_away(&|text| says(text, caption))) {
        "caption"
    } else {
        return Ok(());
    };
    Err(Error { user, target: target.id, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_specific_to_the_target_is_a_leak() {
        let target = Item {
            id: ItemId(7),
            title: "Night Train".to_owned(),
            caption: Some("a train in the dark".to_owned()),
            interactions: 0,
        };
        let check = |request: &str, known: &[&str]| {
            check(UserId(1), &target, &[Message::system("Be brief."), Message::user(request)], known)
        };
        assert!(check("1. [ITEM_3] Day Train — a train at noon", &[]).is_ok());
        for (request, what) in [
            ("next comes [ITEM_7]", "number"),
            ("next comes night train", "title"),
            ("next: a train in the dark", "caption"),
        ] {
            assert_eq!(check(request, &[]).unwrap_err().what, what);
        }
        assert!(check("1. [ITEM_3] The Night Train", &["The Night Train"]).is_ok());
        assert!(
            check("1. [ITEM_3] The Night–Train", &["THE NIGHT TRAIN"]).is_ok(),
            "given in other characters"
        );
    }

    #[test]
    fn leaks_are_found_in_every_script_and_spelling() {
        let target = |title: &str, caption: &str| Item {
            id: ItemId(7),
            title: title.to_owned(),
            caption: Some(caption.to_owned()),
            interactions: 0,
        };
        let check = |target: &Item, request: &str| check(UserId(1), target, &[Message::user(request)], &[]);
        for (title, caption, number, titled, described, clean) in [
            (
                "卧虎藏龙",
                "竹林里两个剑客在打斗",
                "接下来是［ITEM_7］",
                "下一部是《卧虎藏龙》",
                "画面：竹林里，两个剑客在打斗。",
                "竹林里的剑客",
            ),
            (
                "千と千尋の神隠し",
                "赤い橋の上の少女",
                "次は [item_7]",
                "次は千と千尋の神隠しです",
                "次：「赤い橋の上の少女」",
                "橋の上の赤い少女",
            ),
            (
                "สตรีเหล็ก",
                "นักกีฬาในสนามสีเขียว",
                "ต่อไป [ＩＴＥＭ_7]",
                "ต่อไปคือสตรีเหล็ก",
                "ภาพนักกีฬาในสนามสีเขียว",
                "สนามสีเขียว",
            ),
            (
                "Beauty & the Beast",
                "a girl’s yellow dress",
                "[ITEM_7]",
                "beauty and the beast",
                "A GIRL'S YELLOW DRESS",
                "a yellow dress",
            ),
        ] {
            let target = target(title, caption);
            assert!(check(&target, clean).is_ok(), "{clean}");
            for (request, what) in [(number, "number"), (titled, "title"), (described, "caption")] {
                assert_eq!(check(&target, request).unwrap_err().what, what, "{request}");
            }
        }
    }
}
