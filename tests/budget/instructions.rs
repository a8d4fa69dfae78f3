//! Instructions of the hot loops, for each byte or entry, counted by valgrind.
//!
//! The loops are examples of their crates (`delta-loops`, `wire-loops`), built here as they ship, since code without
//! optimisation tells nothing. The budget is for the difference of two runs, so that start and set-up cancel out; the
//! same program gives the same count every time, and another compiler or C library a slightly different one.
//!
//! Valgrind has no AVX-512 and says so in its CPUID: code that looks for it, which here is BLAKE3 alone, takes its AVX2
//! path. So the two loops that hash show how often each byte is hashed and not what hashing costs a newer machine; the
//! others are compiled for any x86-64 and are counted as they run.

use std::{path::PathBuf, process::Command};

use serde_json::Value;
use testkit::{Process, skip};

/// A loop, how many units of it are run, and the instructions that each of them may take.
struct Loop {
    program: &'static str,
    name: &'static str,
    units: u32,
    budget: f64,
}

const BYTES: u32 = 1 << 20;
const ENTRIES: u32 = 5000;

const LOOPS: [Loop; 6] = [
    // The rolling checksum of whole blocks; vectors of 16 bytes, which every x86-64 has.
    delta("weak", 0.7),
    // Weak and strong hash of each block of a basis.
    delta("signature", 3.5),
    // The segment hashes of a comparison in place, with their fold.
    delta("aligned", 2.7),
    // New content against a basis that it shares nothing with: one step of rolling.
    delta("search", 16.0),
    wire("encode", 380.0),
    // Most of it is the memory of each entry.
    wire("decode", 1350.0),
];

const fn delta(name: &'static str, budget: f64) -> Loop {
    Loop { program: "delta-loops", name, units: BYTES, budget }
}

const fn wire(name: &'static str, budget: f64) -> Loop {
    Loop { program: "wire-loops", name, units: ENTRIES, budget }
}

#[test]
fn instructions_of_the_hot_loops() {
    if !skip::commands(&["valgrind"]) {
        return;
    }
    if !runs_avx2() {
        return skip::unsupported("the budgets are for the AVX2 path of BLAKE3");
    }
    let programs = examples();
    let mut over = Vec::new();
    for Loop { program, name, units, budget } in LOOPS {
        let path = programs.iter().find(|path| path.ends_with(program)).unwrap();
        let [once, twice] = [units, 2 * units].map(|units| instructions(path, name, units));
        let spent = (twice - once) as f64 / f64::from(units);
        if spent > budget {
            over.push(format!("{program} {name}: {spent:.3} instructions, over {budget}"));
        }
    }
    assert!(over.is_empty(), "{}", over.join("\n"));
}

#[cfg(target_arch = "x86_64")]
fn runs_avx2() -> bool {
    std::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn runs_avx2() -> bool {
    false
}

/// The programs.
fn examples() -> Vec<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "build",
        "--release",
        "--locked",
        "--offline",
        "--quiet",
        "--message-format=json",
        "--package=pvferry-delta",
        "--package=pvferry-wire",
        "--examples",
    ]);
    let built = build.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let messages = String::from_utf8(built.stdout).unwrap();
    let messages = messages.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    messages.filter_map(|message| Some(message["executable"].as_str()?.into())).collect()
}

/// Instructions of a whole run.
fn instructions(program: &PathBuf, name: &str, units: u32) -> u64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    valgrind.arg(program).arg(name).arg(units.to_string());
    let finished = Process::run(valgrind);
    finished.expect(0);
    // "==PID== I   refs:      1,234,567", with more or fewer spaces by version.
    let line = finished.stderr.lines().find(|line| line.contains("refs:")).unwrap_or_default();
    let (_, count) = line.split_once("refs:").unwrap_or_default();
    count.trim().replace(',', "").parse().unwrap()
}
