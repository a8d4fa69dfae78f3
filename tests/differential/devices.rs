//! Block devices as targets of every option: what a dry run leaves alone, and what a run makes equal.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
};

use testkit::{Content, Finished, Process, Rng, TempTree, skip};

use crate::{
    counts,
    findings::{Findings, seeds},
    support::copy_command,
    trees::last_line,
};

/// A loop device over a file in memory, detached when dropped.
struct Loop {
    device: PathBuf,
    image: PathBuf,
    _dir: TempTree,
}

impl Loop {
    fn new(size: u64) -> Self {
        let dir = TempTree::below("/dev/shm".as_ref());
        dir.sparse("image", size, &[]);
        let image = dir.at("image");
        let mut attach = Command::new("losetup");
        let output = attach.args(["--find", "--show"]).arg(&image).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let device = String::from_utf8(output.stdout).unwrap().trim().into();
        Self { device, image, _dir: dir }
    }

    fn fill(&self, content: &Content) {
        fs::write(&self.device, content.bytes()).unwrap();
        self.content();
    }

    /// What has reached the file below the device.
    fn content(&self) -> Vec<u8> {
        let device = File::options().read(true).write(true).open(&self.device).unwrap();
        rustix::fs::fsync(&device).unwrap();
        fs::read(&self.image).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

const SIZE: usize = 3 << 20;

const OPTIONS: [&[&str]; 9] = [
    &[],
    &["--delete"],
    &["--checksum"],
    &["--atomic"],
    &["--verify"],
    &["--no-owner"],
    &["--compress", "zstd"],
    &["--streams", "3"],
    &["--exclude=a", "--delete", "--max-delete=0"],
];

#[test]
fn take_every_option() {
    if !(skip::root() && skip::commands(&["losetup"])) {
        return;
    }
    let mut findings = Findings::of("devices::take_every_option");
    let from = Loop::new(SIZE as u64);
    let targets = [SIZE, SIZE + (1 << 20), SIZE - (1 << 20)].map(|size| Loop::new(size as u64));
    let mut tried = 0;
    for seed in seeds(54) {
        let mut rng = Rng::new(seed ^ 0x6465_7669);
        let options = OPTIONS[usize::try_from(seed).unwrap() % OPTIONS.len()];
        let to = &targets[usize::try_from(seed / 9).unwrap() % targets.len()];
        let content = content(&mut rng);
        from.fill(&content);
        if rng.below(3) > 0 {
            let at = usize::try_from(rng.below(1 << 20)).unwrap();
            let length = to.content().len();
            to.fill(&Content::from(
                &content.overwrite(at, &rng.bytes(30_000)).bytes()[..SIZE.min(length)],
            ));
        }
        findings.add(seed, &options.join(" "), &compare(&from, to, options));
        tried += 1;
    }
    counts::tell("devices with every option", format!("{tried} devices"));
    findings.conclude();
}

fn content(rng: &mut Rng) -> Content {
    let content = Content::random(rng.below(4), SIZE);
    let at = usize::try_from(rng.below(2 << 20)).unwrap();
    if rng.below(2) == 0 { content.overwrite(at, &vec![0; 1 << 20]) } else { content }
}

fn compare(from: &Loop, to: &Loop, options: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    let (source, before) = (from.content(), to.content());
    let run = |more: &[&str]| -> Finished {
        Process::run(copy_command(&from.device, &to.device, &[options, more].concat()))
    };
    let dry = run(&["--dry-run"]);
    if to.content() != before {
        wrong.push(format!("the dry run wrote: {}", last_line(&dry)));
    }
    let done = run(&[]);
    let after = to.content();
    match done.status.code() {
        Some(0) if after.get(..SIZE) != Some(&source[..]) => {
            wrong.push("success, but the devices differ".into());
        }
        Some(0) if after[SIZE..] != before[SIZE..] => {
            wrong.push("wrote beyond the end of the source".into());
        }
        Some(0) => {}
        code if after != before => wrong.push(format!("ended with {code:?}, and wrote")),
        code if before.len() >= SIZE => {
            wrong.push(format!("ended with {code:?}: {} {}", last_line(&done), done.stderr));
        }
        _ => {}
    }
    if dry.status.code() != done.status.code() {
        wrong.push(format!("dry run and run: {:?} {:?}", dry.status.code(), done.status.code()));
    }
    if from.content() != source {
        wrong.push("the source has changed".into());
    }
    wrong
}
