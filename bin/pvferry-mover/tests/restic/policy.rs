//! Policies keep what those of restic keep, over snapshots of many dates, hosts, paths and time zones.

use std::{collections::HashMap, fs};

use aes256ctr_poly1305aes::{
    Aes256CtrPoly1305Aes, Key,
    aead::{AeadInPlace as _, Nonce},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use testkit::Rng;

use crate::{
    common::{self, Repo},
    restic,
};

const OFFSETS: [&str; 6] = ["Z", "+02:00", "-05:00", "+05:45", "+13:00", "-09:30"];
const DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const TAGS: [&[&str]; 5] = [&[], &["a"], &["b"], &["a", "b"], &["pvferry-partial", "c"]];
const PATHS: [&[&str]; 3] = [&["/data"], &["/data", "/etc"], &["/srv/x y"]];
const GROUPS: u64 = 14;

/// Policies and filters; each is asked of both programs.
const POLICIES: [&[&str]; 19] = [
    &["--keep-last", "1"],
    &["--keep-last", "7"],
    &["--keep-hourly", "5"],
    &["--keep-daily", "4"],
    &["--keep-weekly", "3"],
    &["--keep-weekly", "60"],
    &["--keep-monthly", "5"],
    &["--keep-yearly", "2"],
    &["--keep-yearly", "100"],
    &["--keep-hourly", "unlimited"],
    &["--keep-daily", "unlimited", "--keep-last", "0"],
    &["--keep-last", "2", "--keep-hourly", "3", "--keep-daily", "3", "--keep-weekly", "2"],
    &["--keep-hourly", "24", "--keep-daily", "7", "--keep-monthly", "12", "--keep-yearly", "3"],
    &["--keep-last", "1", "--keep-tag", "a"],
    &["--keep-last", "2", "--keep-tag", "b,a", "--keep-tag", "c", "--host", "h3", "--host", "h4"],
    &["--keep-daily", "2", "--path", "/data"],
    &["--keep-monthly", "2", "--tag", "a,b", "--tag", ""],
    &["--keep-tag", "a"],
    &["--keep-tag", "nobody"],
];

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<_> = text.chars().filter_map(|c| DIGITS.find(c)).collect();
    let byte = |at: usize| {
        let of = |at: usize| digits[at] as u32;
        let pair = of(at * 8 / 6) << 6 | digits.get(at * 8 / 6 + 1).map_or(0, |d| *d as u32);
        (pair >> (4 - at * 8 % 6)) as u8
    };
    (0..digits.len() * 6 / 8).map(byte).collect()
}

/// Writes snapshots in the form of restic.
struct Writer {
    key: Key,
    tree: Value,
    /// What identifies a snapshot: equal for those of one group and time, which may take each other's place.
    written: HashMap<String, String>,
}

impl Writer {
    fn new(repo: &Repo) -> Self {
        let text = restic(repo, &["cat", "masterkey"]);
        let key: Value = serde_json::from_str(&text.expect(0).stdout).unwrap();
        let part = |value: &Value| base64(value.as_str().unwrap());
        let bytes = [part(&key["encrypt"]), part(&key["mac"]["k"]), part(&key["mac"]["r"])];
        let list: Value =
            serde_json::from_str(&restic(repo, &["snapshots", "--json"]).expect(0).stdout).unwrap();
        let key = *Key::from_slice(&bytes.concat());
        Self { key, tree: list[0]["tree"].clone(), written: HashMap::new() }
    }

    fn write(&mut self, repo: &Repo, random: &mut Rng, made: &Made) {
        let Made { time, host, paths, tags } = made;
        let text = json!({
            "time": time, "tree": self.tree, "paths": paths, "hostname": host, "username": "u", "tags": tags,
        })
        .to_string();
        let mut sealed = random.bytes(16);
        let nonce = *Nonce::<Aes256CtrPoly1305Aes>::from_slice(&sealed);
        let mut text = text.into_bytes();
        let cipher = Aes256CtrPoly1305Aes::new(&self.key);
        let code = cipher.encrypt_in_place_detached(&nonce, &[], &mut text).unwrap();
        sealed.extend(text);
        sealed.extend(code);
        let id: String = Sha256::digest(&sealed).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(repo.path().join("snapshots").join(&id), sealed).unwrap();
        self.written.insert(id, format!("{host} {paths:?} {time}"));
    }

    /// What the ids stand for, sorted.
    fn named<'a>(&self, ids: impl Iterator<Item = &'a Value>) -> Vec<&str> {
        let mut names: Vec<_> = ids.map(|id| &*self.written[id.as_str().unwrap()]).collect();
        names.sort_unstable();
        names
    }
}

struct Made {
    time: String,
    host: String,
    paths: &'static [&'static str],
    tags: &'static [&'static str],
}

/// One snapshot of a group. Those of one group lie hours, days, or years apart, or around the end of a year.
fn made(random: &mut Rng, group: u64) -> Made {
    let mut within = |lowest: u64, highest: u64| lowest + random.below(highest - lowest + 1);
    let (year, month) = match group % 4 {
        0 => (2026, 3),
        1 => (within(2025, 2026), within(1, 12)),
        2 => (within(2019, 2027), *[1, 12].get(within(0, 1) as usize).unwrap()),
        _ => (within(2010, 2027), within(1, 12)),
    };
    let last = DAYS[month as usize - 1];
    let day = match group % 4 {
        0 => within(1, 3),
        2 if month == 1 => within(1, 5),
        2 => within(27, 31),
        _ => within(1, last),
    };
    let (hour, minute, nanos) = (within(0, 23), within(0, 59), within(0, 999_999_999));
    // In one group of two, all are in one zone.
    let zone = if group.is_multiple_of(2) { group } else { within(0, 5) };
    let offset = OFFSETS[zone as usize % OFFSETS.len()];
    Made {
        time: format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:07.{nanos:09}{offset}"),
        host: format!("h{}", group / 2),
        paths: PATHS[group as usize % PATHS.len()],
        tags: TAGS[within(0, 4) as usize],
    }
}

#[test]
#[ignore = "tests/restic/run"]
fn policies_keep_and_remove_the_same_snapshots_as_those_of_restic() {
    let (repo, source) = (Repo::local(), testkit::TempTree::new());
    repo.backup(source.path(), 0);
    let mut writer = Writer::new(&repo);
    restic(&repo, &["forget", "latest"]).expect(0);
    let random = &mut Rng::new(7);
    for group in 0..GROUPS {
        for _ in 0..3 + random.below(30) {
            let made = made(random, group);
            let equal = if random.below(6) == 0 { 2 } else { 1 };
            (0..equal).for_each(|_| writer.write(&repo, random, &made));
        }
    }
    println!("{} snapshots", writer.written.len());
    for policy in POLICIES {
        let arguments = [&["forget", "--dry-run", "--json"], policy].concat();
        let (theirs, ours) = (restic(&repo, &arguments), repo.mover(&arguments));
        if theirs.code() != 0 {
            // It refuses to remove all snapshots of a group.
            assert!(theirs.stderr.contains("refusing"), "{policy:?}: {theirs:?}");
            ours.expect(1);
            continue;
        }
        let groups: Vec<Value> = serde_json::from_str(&theirs.stdout).unwrap();
        let report = common::report(ours.expect(0));
        for (theirs, ours) in [("keep", "kept"), ("remove", "removed")] {
            let ids = groups.iter().filter_map(|group| group[theirs].as_array()).flatten();
            let theirs = writer.named(ids.map(|snapshot| &snapshot["id"]));
            let ours = writer.named(report[ours].as_array().unwrap().iter());
            assert!(theirs == ours, "{policy:?}: restic\n{theirs:#?}\nours\n{ours:#?}");
        }
        println!("{policy:?}: {} removed", report["removed"].as_array().unwrap().len());
    }
    restic(&repo, &["snapshots"]).expect(0);
}
