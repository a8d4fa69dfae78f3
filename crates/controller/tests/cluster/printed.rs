//! What `docs/OPERATIONS.md` shows is what kubectl prints.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use controller::api::Phase;
use serde_json::json;
use testkit::assert_same;

use super::{
    changing::start_writer,
    support::{Place, in_place},
};

fn kubectl(place: &Place, words: &[&str]) -> Command {
    let mut kubectl = Command::new("kubectl");
    kubectl.env("KUBECONFIG", &place.cluster.kubeconfig).args(["-n", &place.home]).args(words);
    kubectl
}

fn printed(place: &Place, words: &[&str]) -> String {
    let output = kubectl(place, words).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{words:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // The names of the document.
    text.replace(&place.source, "shop").replace(&place.destination, "shop-new")
}

fn watch(place: &Place, file: &Path) -> Child {
    let mut watch = kubectl(place, &["get", "pvm", "-w"]);
    watch.stdout(fs::File::create(file).unwrap()).spawn().unwrap()
}

/// The lines of a table without its name and age, and without what depends on the speed of the machine.
fn phases(table: &str) -> Vec<String> {
    let rows = table.lines().skip_while(|line| !line.starts_with("NAME")).skip(1);
    let rows = rows.take_while(|line| !line.is_empty());
    let mut phases: Vec<String> = rows
        .map(|row| row.split_whitespace().skip(1).take(2).collect::<Vec<_>>().join(" "))
        .collect();
    // Before the first step there is no phase, and its column holds the next one.
    phases.retain(|phase| {
        phase.split(' ').nth(1).is_some_and(|phase| phase.starts_with(char::is_alphabetic))
    });
    phases.dedup();
    phases
}

/// The columns of tables; with or without the namespace.
fn headers(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().filter(|line| line.starts_with("NAME"));
    lines
        .map(|line| line.split_whitespace().filter(|column| *column != "NAMESPACE").collect())
        .collect()
}

/// Type, reason and message of the events of a description: `#` in place of numbers and of what names end with.
fn events(description: &str) -> Vec<String> {
    let lines = description.lines().map(str::trim);
    let lines = lines.filter(|line| line.starts_with("Normal ") || line.starts_with("Warning "));
    // A pod may be gone before the run looks for it.
    let lines = lines.filter(|line| !line.contains(" StillInUse "));
    let mut events: Vec<String> = lines.map(event).collect();
    // Which pods of a workload are met, and in what order events of one second are printed, differs.
    events.sort();
    events.dedup();
    events
}

fn event(line: &str) -> String {
    let (head, message) = line.split_once("pvferry-controller").unwrap();
    let words: Vec<&str> = head.split_whitespace().take(2).collect();
    // Whether the writer meets the run is for chance to say.
    let changed = message.split_once(" changed during the run");
    let message = changed.and_then(|(head, _)| head.rsplit_once("; ")).map_or(message, |cut| cut.0);
    let message = message.trim().split(' ').map(word).collect::<Vec<_>>().join(" ");
    format!("{} {message}", words.join(" "))
}

fn word(word: &str) -> String {
    match word.strip_prefix("web-") {
        Some(_) => "web-#".into(),
        None if word.starts_with(|c: char| c.is_ascii_digit()) => "#".into(),
        None => match word {
            "B" | "KiB" | "MiB" => "#".into(),
            "entry" | "entries" => "entries".into(),
            _ => word.into(),
        },
    }
}

#[test]
fn operations_shows_what_kubectl_prints_of_a_stage_a_cutover_and_a_rollback() {
    in_place(async |mut place| {
        let (from, to) = (place.source_volume("data").await, place.target_volume("data").await);
        let _made = start_writer(&place, &from).await;
        let watched = from.with_file_name("watched");
        let mut watching = watch(&place, &watched);
        let spec = json!({ "quiesce": "ScaleToZero", "transfer": { "bandwidth": "16M" } });
        place.migrate(&["data"], spec).await;
        let begun = std::time::Instant::now();
        while fs::metadata(&watched).unwrap().len() == 0 {
            assert!(begun.elapsed().as_secs() < 60, "kubectl prints nothing");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        place.start_controller();
        place.completes().await;
        let tables = printed(&place, &["get", "pvm,pvmp"]);
        place.change(json!({ "run": 2, "mode": "Cutover" })).await;
        let status = place.ends(2).await;
        assert_eq!(status.phase, Phase::Completed, "{status:#?}");
        assert_same(&from, &to);
        place.change(json!({ "run": 3, "mode": "Rollback" })).await;
        place.until("rollback", |s| s.run == 3 && s.phase.is_final()).await;
        // The last event is written after the status.
        place.until_event("RolledBack").await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        watching.kill().unwrap();
        watching.wait().unwrap();
        let table = fs::read_to_string(&watched).unwrap();
        let description = printed(&place, &["describe", "pvm", "m"]);
        println!("{table}\n{tables}\n{description}");

        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let readme = fs::read_to_string(root.join("README.md")).unwrap();
        assert_eq!(headers(&readme), headers(&tables), "the example of README");
        let operations = fs::read_to_string(root.join("docs/OPERATIONS.md")).unwrap();
        let shown = operations.split("kubectl -n pvferry get pvm -w\n").nth(1).unwrap();
        let shown = shown.split("```").next().unwrap();
        assert_eq!(phases(shown), phases(&table));
        assert_eq!(events(shown), events(&description));
    });
}
