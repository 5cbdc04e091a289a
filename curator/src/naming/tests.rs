use super::*;

#[test]
fn titles_are_found_in_every_spelling() {
    for (text, title, expected) in [
        ("A poster of TOY STORY with a cowboy", "Toy Story (1995)", true),
        ("A toy tells its story", "Toy Story (1995)", false),
        ("the lion king stands on a rock", "Lion King, The (1994)", true),
        ("a lion, a king", "Lion King, The (1994)", false),
        ("Two men in the Heat of L.A.", "Heat (1995)", true),
        ("the heat of summer", "Heat (1995)", false),
        ("the letters HEAT in red", "Heat (1995)", true),
        ("the IT department", "It (1990)", false),
        ("It shows a clown", "It", true),
        ("it's red", "It", false),
        ("The words \"It's Complicated\" above a couple", "It's Complicated", true),
        ("Spider-Man swings", "Spider Man", true),
        ("the Night Train's lights", "Night Train", true),
        ("night trains", "Night Train", false),
        ("stars ★★★ above", "★★★", true),
        ("stars", "★★★", false),
        ("anything", "", false),
        ("anything", "(1995)", false),
        ("東京物語 poster", "東京物語", true),
        ("La Haine in white letters", "Haine, La (1995)", true),
        ("she has la grippe", "La Grippe Noire", false),
    ] {
        assert_eq!(names(text, title), expected, "{text:?} names {title:?}");
    }
}

/// Seven titles, each with a text that names it; then texts that do not.
type Planted = (&'static str, [(&'static str, &'static str); 7], [(&'static str, &'static str); 4]);

const PLANTED: [Planted; 9] = [
    (
        "compatible characters",
        [
            ("Ｔｏｙ　Ｓｔｏｒｙ", "a poster of toy story"),
            ("Ocean Eleven", "Ｏｃｅａｎ Ｅｌｅｖｅｎ in gold"),
            ("The ﬁnal cut", "in the FINAL CUT a man"),
            ("Cafe\u{301} Society", "the café society dances"),
            ("Night\u{A0}Train", "Night Train in the dark"),
            ("Soft\u{AD}ware Wars", "robots of Software Wars"),
            ("Chapter Ⅳ", "words Chapter IV above"),
        ],
        [
            ("Ｔｏｙ　Ｓｔｏｒｙ", "a toy with a story"),
            ("Night\u{A0}Train", "a train at night"),
            ("The ﬁnal cut", "a final scene, cut short"),
            ("Chapter Ⅳ", "chapter five"),
        ],
    ),
    (
        "case",
        [
            ("Straße der Nacht", "die STRASSE DER NACHT im Regen"),
            ("ΟΔΥΣΣΕΙΑ ΦΩΤΟΣ", "η Οδύσσεια φωτός"),
            ("Война и мир", "надпись ВОЙНА И МИР"),
            ("Kış Uykusu", "KIŞ UYKUSU yazısı"),
            ("İstanbul Hatırası", "istanbul hatirasi"),
            ("Élite Française", "ELITE FRANÇAISE en or"),
            ("ẞerlin Nights", "sserlin nights"),
        ],
        [
            ("Война и мир", "мир без войны"),
            ("Straße der Nacht", "eine Straße in der Nacht"),
            ("Kış Uykusu", "kış ve uyku"),
            ("ΟΔΥΣΣΕΙΑ ΦΩΤΟΣ", "φως της οδύσσειας"),
        ],
    ),
    (
        "quotes",
        [
            ("It's Complicated", "the words “It’s Complicated”"),
            ("Ocean's Eleven", "Oceanʼs Eleven in lights"),
            ("Schindler’s List", "Schindler's list"),
            ("L’Année dernière", "L'ANNÉE DERNIÈRE"),
            ("«Cold Summer»", "a Cold Summer scene"),
            ("Rosemary´s Baby", "Rosemary's Baby in pink"),
            ("„Good Bye“", "the words 'good bye'"),
        ],
        [
            ("It's Complicated", "it is complicated"),
            ("Ocean's Eleven", "eleven men at the ocean"),
            ("Schindler’s List", "a list of names"),
            ("«Cold Summer»", "a summer, cold"),
        ],
    ),
    (
        "dashes",
        [
            ("Spider-Man", "Spider–Man swings"),
            ("Kill—Bill", "kill bill with a sword"),
            ("X‑Men", "X-Men in a row"),
            ("Night – Train", "the night-train"),
            ("Half−Life", "a half—life logo"),
            ("Blade ― Runner", "Blade Runner in the rain"),
            ("Ping〜Pong", "ping-pong on a table"),
        ],
        [
            ("Spider-Man", "a man with a spider"),
            ("Kill—Bill", "a bill to kill"),
            ("Night – Train", "a train"),
            ("Half−Life", "half of a life"),
        ],
    ),
    (
        "ampersands",
        [
            ("Beauty & the Beast", "Beauty and the Beast dance"),
            ("Thelma and Louise", "Thelma & Louise in a car"),
            ("Q&A", "a q and a"),
            ("Fast ＆ Furious", "FAST AND FURIOUS cars"),
            ("Lilo&Stitch", "lilo and stitch"),
            ("Pride and Prejudice", "“Pride & Prejudice”"),
            ("Salt ﹠ Pepper", "salt and pepper"),
        ],
        [
            ("Beauty & the Beast", "a beast and a beauty"),
            ("Thelma and Louise", "Thelma with Louise"),
            ("Fast ＆ Furious", "fast, furious cars"),
            ("Pride and Prejudice", "pride"),
        ],
    ),
    (
        "Chinese",
        [
            ("卧虎藏龙", "画面上写着卧虎藏龙四个大字"),
            ("霸王别姬 (1993)", "一张霸王别姬的海报"),
            ("花样年华", "海报《花样年华》以红色为主"),
            ("大红灯笼高高挂", "院子里大红灯笼高高挂起"),
            ("英雄", "这是英雄的海报"),
            ("让子弹飞", "字：“让·子弹·飞”"),
            ("重庆森林", "看Titanic和重庆森林的人"),
        ],
        [
            ("花", "一棵樱花树"),
            ("卧虎藏龙", "一只卧着的虎和一条龙"),
            ("花样年华", "年华里的花"),
            ("大红灯笼高高挂", "红灯笼挂得很高"),
        ],
    ),
    (
        "Japanese",
        [
            ("東京物語", "壁に東京物語のポスターがある"),
            ("千と千尋の神隠し", "「千と千尋の神隠し」という文字"),
            ("となりのトトロ", "となりのﾄﾄﾛの絵"),
            ("スター・ウォーズ", "スターウォーズのロゴ"),
            ("君の名は。", "大きく君の名はと書かれている"),
            ("七人の侍 (1954)", "白黒の七人の侍です"),
            ("ラーメン", "赤い字でラーメンと書いてある"),
        ],
        [
            ("ライト", "ライトアップされた塔"),
            ("東京物語", "東京の物語"),
            ("七人の侍", "侍が七人いる"),
            ("ハート", "ハートフルな場面"),
        ],
    ),
    (
        "Thai",
        [
            ("พี่มากพระโขนง", "โปสเตอร์ของพี่มากพระโขนงสีแดง"),
            ("ฉลาดเกมส์โกง", "มีคำว่าฉลาดเกมส์โกงอยู่ตรงกลาง"),
            ("สตรีเหล็ก (2000)", "ภาพสตรีเหล็กในสนาม"),
            ("รักแห่งสยาม", "ป้าย รักแห่งสยาม ขนาดใหญ่"),
            ("องค์บาก", "เขียนว่า\"องค์บาก\""),
            ("แฟนฉัน", "หนังแฟนฉันเป็นเรื่อง"),
            ("ตำนานสมเด็จพระนเรศวรมหาราช", "ภาพจากตำนานสมเด็จพระนเรศวรมหาราชภาคแรก"),
        ],
        [
            ("กา", "การเดินทางไกล"),
            ("รักแห่งสยาม", "ความรักในสยาม"),
            ("แฟนฉัน", "ฉันมีแฟน"),
            ("ฉลาดเกมส์โกง", "เกมส์ของคนฉลาด"),
        ],
    ),
    (
        "Korean",
        [
            ("기생충", "벽에 기생충의 포스터가 있다"),
            ("올드보이", "올드보이라는 글자"),
            ("살인의 추억", "영화 살인의 추억을 보는 사람"),
            ("부산행", "“부산행” 기차"),
            ("봄 여름 가을 겨울", "봄, 여름, 가을, 겨울이 보인다"),
            ("괴물", "괴물이 강에서 나온다"),
            ("헤어질 결심", "헤어질 결심에서 본 바다"),
        ],
        [
            ("사랑", "사랑스러운 강아지"),
            ("살인의 추억", "추억의 살인"),
            ("봄 여름 가을 겨울", "겨울과 봄"),
            ("헤어질 결심", "결심한 사람"),
        ],
    ),
];

#[test]
fn planted_titles_are_found_without_false_alarms() {
    for (class, planted, clean) in PLANTED {
        let missed: Vec<_> = planted.iter().filter(|(title, text)| !names(text, title)).collect();
        assert!(missed.is_empty(), "{class}: missed {missed:?}");
        let alarms: Vec<_> = clean.iter().filter(|(title, text)| names(text, title)).collect();
        assert!(alarms.is_empty(), "{class}: false alarms {alarms:?}");
    }
}

#[test]
fn a_title_of_one_megabyte_is_handled() {
    let title = "very ".repeat(200_000) + "long";
    assert!(!names("a very long caption", &title));
    assert!(names(&format!("x {title} y"), &title));
}
