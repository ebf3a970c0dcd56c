//! Prometheus' own tool, and what it is given: the pages that a service showed.
//!
//! It is looked for on the path, then where `TEST_PROMTOOL` says. Without it, and with `TEST_PROMTOOL=off`, what needs
//! it is left out; with any other `TEST_PROMTOOL`, such as `required`, and wherever `CI` is set, it fails then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use regex::Regex;
use serde_json::{Value, json};
use uuid::Uuid;

use super::wanted::Wanted;

/// The rules that ship.
pub const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/observability/alerts.yml");

/// Their text.
pub const RULES_TEXT: &str = include_str!("../../../deploy/observability/alerts.yml");
const DASHBOARD: &str = include_str!("../../../deploy/observability/dashboard.json");

const WANTED: Wanted = Wanted { topic: "promtool", variable: "TEST_PROMTOOL", tests: "the tests of alert rules" };

/// Where it is, or `None` if what needs it is to be left out.
pub fn promtool() -> Option<&'static Path> {
    static PROMTOOL: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    WANTED.get(PROMTOOL.get_or_init(|| WANTED.look(find))).map(PathBuf::as_path)
}

fn find() -> Result<(String, PathBuf), String> {
    let runs = |program: &&str| {
        let mut version = Command::new(program);
        version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    };
    let said = WANTED.said();
    let found = match said.as_deref() {
        None | Some("" | "required") => {
            Some("promtool").filter(runs).ok_or_else(|| "no promtool on the path".to_owned())
        }
        Some(path) => ["promtool", path].into_iter().find(runs).ok_or_else(|| format!("no promtool, nor at {path}")),
    };
    found.map(|program| (program.to_owned(), program.into()))
}

/// Has it look at a file of this content. Without the tool nothing is looked at.
pub fn run(arguments: &[&str], content: &Value) {
    let Some(promtool) = promtool() else { return };
    // JSON is YAML.
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("promtool-{}.yml", Uuid::now_v7()));
    fs::write(&file, format!("{content:#}")).unwrap();
    let output = Command::new(promtool).args(arguments).arg(&file).output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    // One that fails stays, to be looked at.
    assert!(output.status.success(), "{}: {}", file.display(), said.join("\n"));
    fs::remove_file(&file).unwrap();
}

/// The pages of a service, as if each had been read a minute after the one before, and which alerts are to fire.
#[derive(Default)]
pub struct Scrapes {
    /// The values of each series, where it has one.
    series: BTreeMap<String, Vec<Option<String>>>,
    pages: usize,
    expected: Vec<Value>,
}

impl Scrapes {
    /// The next page. An empty one is that of a service that could not be reached.
    pub fn add(&mut self, page: &str) {
        self.pages += 1;
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let values = self.series.entry(series.to_owned()).or_default();
            values.resize(self.pages - 1, None);
            values.push(Some(value.to_owned()));
        }
    }

    /// After the last page exactly these fire.
    pub fn expect(&mut self, alerts: &[&str]) {
        let labels = |alert: &&str| json!({ "labels": format!("{{alertname=\"{alert}\"}}"), "value": 1 });
        self.expected.push(json!({
            "expr": "group by (alertname) (ALERTS{alertstate=\"firing\"})",
            "eval_time": format!("{}m", self.pages - 1),
            "exp_samples": alerts.iter().map(labels).collect::<Vec<_>>(),
        }));
    }

    /// Whether it is as expected.
    pub fn check(mut self) {
        let series = self.series.iter_mut().map(|(series, values)| {
            values.resize(self.pages, None);
            json!({ "series": scraped(series), "values": notation(values) })
        });
        let test =
            json!({ "interval": "1m", "input_series": series.collect::<Vec<_>>(), "promql_expr_test": self.expected });
        let file = json!({ "rule_files": [RULES], "evaluation_interval": "1m", "tests": [test] });
        run(&["test", "rules"], &file);
    }
}

/// With the labels that Prometheus adds.
fn scraped(series: &str) -> String {
    let target = "job=\"service\",instance=\"localhost:8443\"";
    match series.split_once('{') {
        Some((name, labels)) => format!("{name}{{{target},{labels}"),
        None => format!("{series}{{{target}}}"),
    }
}

/// As it writes values: `_` is none, and `stale` that there is none any more.
fn notation(values: &[Option<String>]) -> String {
    let mut there = false;
    let texts = values.iter().map(|value| {
        let text = value.as_deref().unwrap_or(if there { "stale" } else { "_" });
        there = value.is_some();
        text
    });
    texts.collect::<Vec<_>>().join(" ")
}

/// Every expression of the rules and of the dashboard, with the name of what a rule records.
pub fn expressions() -> (Vec<String>, BTreeSet<String>) {
    let (mut expressions, mut records) = (Vec::new(), BTreeSet::new());
    let mut lines = RULES_TEXT.lines().peekable();
    let depth = |line: &str| line.len() - line.trim_start().len();
    while let Some(line) = lines.next() {
        if let Some(name) = line.trim().strip_prefix("- record: ") {
            records.insert(name.to_owned());
        }
        let Some(first) = line.trim().strip_prefix("expr: ") else { continue };
        let mut expression = first.trim_start_matches(">-").to_owned();
        while let Some(more) = lines.next_if(|next| depth(next) > depth(line)) {
            expression = format!("{expression} {}", more.trim());
        }
        expressions.push(expression);
    }
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array());
    expressions.extend(targets.flatten().map(|target| target["expr"].as_str().unwrap().to_owned()));
    assert!(expressions.len() > 40 && !records.is_empty(), "{expressions:#?}");
    (expressions, records)
}

/// What the first group of a pattern matches.
pub fn captures(pattern: &str, text: &str) -> BTreeSet<String> {
    Regex::new(pattern).unwrap().captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// The metrics and the labels that an expression names.
pub fn names(expression: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let without = |pattern: &str, text: &str| Regex::new(pattern).unwrap().replace_all(text, " ").into_owned();
    let grouping = r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)";
    let mut rest = without(r#""[^"]*""#, expression);
    let mut labels = captures(r"[{,]\s*([a-z_]+)\s*[=!]", &rest);
    let grouped = captures(grouping, &rest);
    labels.extend(grouped.iter().flat_map(|labels| labels.split(',')).map(|label| label.trim().to_owned()));
    for pattern in [r"\{[^}]*\}", r"\[[^\]]*\]", grouping] {
        rest = without(pattern, &rest);
    }
    // A word before a bracket is a function.
    let words = captures(r"\b([a-zA-Z_][a-zA-Z0-9_:]*)", &without(r"\b\w+\s*\(", &rest));
    let language = ["and", "or", "unless", "offset"];
    (words.into_iter().filter(|word| !language.contains(&word.as_str())).collect(), labels)
}
