//! Repositories with one file that is damaged, truncated or missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::Repo;
use testkit::{Content, TempTree};

/// How it is called, and what does it.
type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 3] = [
    ("flipped", |path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }),
    ("truncated", |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("removed", |path| fs::remove_file(path).unwrap()),
];

/// A repository with one snapshot of `source`.
fn backed_up() -> (Repo, TempTree) {
    let (repo, source) = (Repo::local(), TempTree::new());
    source.file("a", "small").file("d/large", Content::random(1, 300_000));
    repo.backup(source.path(), 0);
    (repo, source)
}

/// The files below `dir` of the repository.
fn files(repo: &Repo, dir: &str) -> Vec<PathBuf> {
    let list = |dir: &Path| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    list(&repo.path().join(dir))
        .flat_map(|path| if path.is_dir() { list(&path).collect() } else { vec![path] })
        .collect()
}

/// Damages `file` in each way, and expects `check` and `restore` to end with one of the codes.
fn expect_reported(repo: &Repo, file: &Path, check: &[i32], restore: &[i32]) {
    let sound = fs::read(file).unwrap();
    for (how, damage) in DAMAGES {
        damage(file);
        let destination = TempTree::new();
        let target = destination.path().to_str().unwrap();
        let checked = repo.mover(["check", "--read-data"]);
        let restored = repo.mover(["restore", "latest", target]);
        for (finished, codes) in [(&checked, check), (&restored, restore)] {
            let name = file.display();
            assert!(codes.contains(&finished.code()), "{how} {name}: {finished:?}");
            assert!(!finished.stderr.contains("panicked"), "{how} {name}: {finished:?}");
        }
        fs::write(file, &sound).unwrap();
    }
}

#[test]
fn damaged_pack_of_directories_is_reported_without_a_panic() {
    let (repo, _source) = backed_up();
    let packs = files(&repo, "data");
    let trees = packs.iter().min_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    // The root of the volume (11), or a directory below it (23).
    expect_reported(&repo, trees, &[23], &[11, 23]);
}

#[test]
fn damaged_pack_of_content_is_restored_around() {
    let (repo, _source) = backed_up();
    let packs = files(&repo, "data");
    let content = packs.iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    expect_reported(&repo, content, &[23], &[23]);
}

#[test]
fn damaged_metadata_of_the_repository_is_reported() {
    let (repo, _source) = backed_up();
    let snapshot = files(&repo, "snapshots").remove(0);
    expect_reported(&repo, &repo.path().join("config"), &[3, 11], &[3, 11]);
    expect_reported(&repo, &files(&repo, "keys").remove(0), &[1, 11], &[1, 11]);
    expect_reported(&repo, &files(&repo, "index").remove(0), &[11, 23], &[11]);
    for (_, damage) in &DAMAGES[..2] {
        let sound = fs::read(&snapshot).unwrap();
        damage(&snapshot);
        repo.mover(["check"]).expect(11);
        fs::write(&snapshot, sound).unwrap();
    }
}
