//! Generates large files in the format of public data sets, to measure imports. Their content is random.
//!
//! ```text
//! cargo run --release -p podium-curator --example generate -- microlens DIR   # 50,000 users, 19,220 items
//! cargo run --release -p podium-curator --example generate -- movielens DIR   # 20,000,000 ratings
//! cargo run --release -p podium-curator --example generate -- amazon DIR      # 8,000,000 reviews of 2,000,000 users
//! ```

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use podium_grpo::rng::Stream;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [shape, folder] if shape == "microlens" => microlens(Path::new(folder)),
        [shape, folder] if shape == "movielens" => movielens(Path::new(folder)),
        [shape, folder] if shape == "amazon" => amazon(Path::new(folder)),
        _ => Err(io::Error::other("expected `microlens DIR`, `movielens DIR` or `amazon DIR`")),
    }
}

/// Pairs as `user TAB items`, titles with commas, quotes and `#`, all lines ending in CRLF.
fn microlens(folder: &Path) -> io::Result<()> {
    const USERS: u64 = 50_000;
    const ITEMS: u64 = 19_220;
    let mut stream = Stream::new(0, "microlens", &[]);
    let mut pairs = create(folder, "pairs.tsv")?;
    let mut interactions = 0;
    for user in 1..=USERS {
        write!(pairs, "{user}")?;
        let length = 5 + stream.below(10);
        for position in 0..length {
            let item = 1 + popular(&mut stream, ITEMS);
            write!(pairs, "{}{item}", if position == 0 { '\t' } else { ' ' })?;
        }
        interactions += length;
        write!(pairs, "\r\n")?;
    }
    pairs.flush()?;
    let mut titles = create(folder, "titles.csv")?;
    write!(titles, "item,title\r\n")?;
    for item in 1..=ITEMS {
        write!(
            titles,
            "{item},\"Number {item}, \"\"the {item}th\"\" #video 短视频 {}\"\r\n",
            "and more ".repeat(8)
        )?;
    }
    titles.flush()?;
    println!("{USERS} users, {ITEMS} items, {interactions} interactions");
    Ok(())
}

/// Ratings and movies as CSV with a header.
fn movielens(folder: &Path) -> io::Result<()> {
    const USERS: u64 = 138_493;
    const ITEMS: u64 = 27_278;
    const RATINGS: u64 = 20_000_000;
    let mut stream = Stream::new(0, "movielens", &[]);
    let mut ratings = create(folder, "ratings.csv")?;
    writeln!(ratings, "userId,movieId,rating,timestamp")?;
    for rating in 0..RATINGS {
        let user = 1 + rating * USERS / RATINGS;
        let (item, stars) = (1 + popular(&mut stream, ITEMS), 1 + stream.below(10));
        // Consecutive numbers keep pairs of user and item distinct.
        writeln!(ratings, "{user},{item},{}.{},{}", stars / 2, 5 * (stars % 2), 800_000_000 + rating * 20)?;
    }
    ratings.flush()?;
    let mut movies = create(folder, "movies.csv")?;
    writeln!(movies, "movieId,title,genres")?;
    for item in 1..=ITEMS {
        writeln!(movies, "{item},\"Number {item}, The (1999)\",Drama|War")?;
    }
    movies.flush()?;
    println!("{USERS} users, {ITEMS} items, {RATINGS} interactions");
    Ok(())
}

/// Reviews and metadata of 2023 as compressed JSON lines, in the order of users, who have one to seven reviews. Every
/// fiftieth review is repeated, and every twentieth product has no title.
fn amazon(folder: &Path) -> io::Result<()> {
    const USERS: u64 = 2_000_000;
    const ITEMS: u64 = 200_000;
    let compressed = |name: &str| -> io::Result<GzEncoder<BufWriter<File>>> {
        Ok(GzEncoder::new(create(folder, name)?, Compression::fast()))
    };
    let mut stream = Stream::new(0, "amazon", &[]);
    let mut reviews = compressed("reviews.jsonl.gz")?;
    let mut interactions = 0_u64;
    for user in 0..USERS {
        for _ in 0..=stream.below(7) {
            let (item, stars) = (popular(&mut stream, ITEMS), 1 + stream.below(5));
            let line = format!(
                "{{\"rating\": {stars}.0, \"title\": \"Such\", \"text\": \"{}\", \"images\": [], \"asin\": \"B{item:09}\", \
                 \"parent_asin\": \"B{item:09}\", \"user_id\": \"AGKHLEW2SOWHNMFQIJ{user:010}\", \"timestamp\": {}, \
                 \"helpful_vote\": 0, \"verified_purchase\": true}}\n",
                "A review of some length. ".repeat(8),
                1_588_687_728_923 + interactions * 1_000
            );
            let repeated = interactions.is_multiple_of(50);
            for _ in 0..=u8::from(repeated) {
                reviews.write_all(line.as_bytes())?;
            }
            interactions += 1;
        }
    }
    reviews.finish()?.flush()?;
    let mut metadata = compressed("meta.jsonl.gz")?;
    for item in 0..ITEMS {
        let title = if item % 20 == 19 {
            "null".to_owned()
        } else {
            format!("\"Product number {item}, two colours\"")
        };
        writeln!(
            metadata,
            "{{\"main_category\": null, \"title\": {title}, \"parent_asin\": \"B{item:09}\"}}"
        )?;
    }
    metadata.finish()?.flush()?;
    println!("{USERS} users, {ITEMS} items, {interactions} interactions");
    Ok(())
}

/// Returns a number below `n`, with a strong preference for small ones.
fn popular(stream: &mut Stream, n: u64) -> u64 {
    ((n as f64).powf(stream.uniform()) as u64 - 1).min(n - 1)
}

fn create(folder: &Path, name: &str) -> io::Result<BufWriter<File>> {
    fs::create_dir_all(folder)?;
    Ok(BufWriter::new(File::create(folder.join(name))?))
}
