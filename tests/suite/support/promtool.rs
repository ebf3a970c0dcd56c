//! Prometheus' `promtool`, and the files that tests of alert rules (LOG-07) give it.
//!
//! [`Scrapes`] turns the metrics pages of a service into the input of `promtool test rules`. The
//! program is searched on the path, then at `TEST_PROMTOOL`. Without it those tests are skipped, as
//! with `TEST_PROMTOOL=off`; they fail if `TEST_PROMTOOL` has another value, such as `required`, or
//! if `CI` is set.

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

use palisade_test::OptionalTool;

/// The alert rules in `deploy/`.
pub const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/observability/alerts.yml");

/// The text of the alert rules.
pub const RULES_TEXT: &str = include_str!("../../../deploy/observability/alerts.yml");
const DASHBOARD: &str = include_str!("../../../deploy/observability/dashboard.json");

const TOOL: OptionalTool =
    OptionalTool { topic: "promtool", variable: "TEST_PROMTOOL", tests: "the tests of alert rules" };

/// The path of promtool, or `None` if the tests that need it are to be skipped.
pub fn promtool() -> Option<&'static Path> {
    static PROMTOOL: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    TOOL.get(PROMTOOL.get_or_init(|| TOOL.find(search))).map(PathBuf::as_path)
}

fn search() -> Result<(String, PathBuf), String> {
    let runs = |program: &&str| {
        let mut version = Command::new(program);
        version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    };
    let setting = TOOL.setting();
    let found = match setting.as_deref() {
        None | Some("" | "required") => {
            Some("promtool").filter(runs).ok_or_else(|| "no promtool on the path".to_owned())
        }
        Some(path) => {
            ["promtool", path].into_iter().find(runs).ok_or_else(|| format!("no promtool on the path or at {path}"))
        }
    };
    found.map(|program| (program.to_owned(), program.into()))
}

/// Runs promtool on a file with this content and asserts success. Does nothing without promtool.
pub fn run(arguments: &[&str], content: &Value) {
    let Some(promtool) = promtool() else { return };
    // JSON is YAML.
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("promtool-{}.yml", Uuid::now_v7()));
    fs::write(&file, format!("{content:#}")).unwrap();
    let output = Command::new(promtool).args(arguments).arg(&file).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    // The file of a failed run stays for inspection.
    assert!(output.status.success(), "{}: {}", file.display(), text.join("\n"));
    fs::remove_file(&file).unwrap();
}

/// Metrics pages, taken as scraped one minute apart, and the alerts that must fire after some of
/// them.
#[derive(Default)]
pub struct Scrapes {
    /// The value of each series on each page; `None` where the page lacks it.
    series: BTreeMap<String, Vec<Option<String>>>,
    pages: usize,
    expected: Vec<Value>,
}

impl Scrapes {
    /// Adds the next page. An empty page stands for a failed scrape.
    pub fn add(&mut self, page: &str) {
        self.pages += 1;
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let values = self.series.entry(series.to_owned()).or_default();
            values.resize(self.pages - 1, None);
            values.push(Some(value.to_owned()));
        }
    }

    /// Expects exactly these alerts to fire after the last page.
    pub fn expect(&mut self, alerts: &[&str]) {
        let labels = |alert: &&str| json!({ "labels": format!("{{alertname=\"{alert}\"}}"), "value": 1 });
        self.expected.push(json!({
            "expr": "group by (alertname) (ALERTS{alertstate=\"firing\"})",
            "eval_time": format!("{}m", self.pages - 1),
            "exp_samples": alerts.iter().map(labels).collect::<Vec<_>>(),
        }));
    }

    /// Evaluates the rules on all pages and asserts the expectations.
    pub fn check(mut self) {
        let series = self.series.iter_mut().map(|(series, values)| {
            values.resize(self.pages, None);
            json!({ "series": with_target_labels(series), "values": notation(values) })
        });
        let test =
            json!({ "interval": "1m", "input_series": series.collect::<Vec<_>>(), "promql_expr_test": self.expected });
        let file = json!({ "rule_files": [RULES], "evaluation_interval": "1m", "tests": [test] });
        run(&["test", "rules"], &file);
    }
}

/// The series with the labels that Prometheus adds when it scrapes.
fn with_target_labels(series: &str) -> String {
    let target = "job=\"service\",instance=\"localhost:8443\"";
    match series.split_once('{') {
        Some((name, labels)) => format!("{name}{{{target},{labels}"),
        None => format!("{series}{{{target}}}"),
    }
}

/// The values in promtool's notation: `_` is a missing value, `stale` the end of a series.
fn notation(values: &[Option<String>]) -> String {
    let mut exists = false;
    let texts = values.iter().map(|value| {
        let text = value.as_deref().unwrap_or(if exists { "stale" } else { "_" });
        exists = value.is_some();
        text
    });
    texts.collect::<Vec<_>>().join(" ")
}

/// Every expression of the rules and the dashboard, and the names of the recording rules.
pub fn expressions() -> (Vec<String>, BTreeSet<String>) {
    let mut expressions = Vec::new();
    let mut records = BTreeSet::new();
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

/// All matches of the first group of a pattern.
pub fn captures(pattern: &str, text: &str) -> BTreeSet<String> {
    Regex::new(pattern).unwrap().captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// The metrics and the labels in an expression.
pub fn metrics_and_labels(expression: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let without = |pattern: &str, text: &str| Regex::new(pattern).unwrap().replace_all(text, " ").into_owned();
    let grouping = r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)";
    let mut rest = without(r#""[^"]*""#, expression);
    let mut labels = captures(r"[{,]\s*([a-z_]+)\s*[=!]", &rest);
    let grouped = captures(grouping, &rest);
    labels.extend(grouped.iter().flat_map(|labels| labels.split(',')).map(|label| label.trim().to_owned()));
    for pattern in [r"\{[^}]*\}", r"\[[^\]]*\]", grouping] {
        rest = without(pattern, &rest);
    }
    // A word before a parenthesis is a function.
    let words = captures(r"\b([a-zA-Z_][a-zA-Z0-9_:]*)", &without(r"\b\w+\s*\(", &rest));
    let keywords = ["and", "or", "unless", "offset"];
    (words.into_iter().filter(|word| !keywords.contains(&word.as_str())).collect(), labels)
}
