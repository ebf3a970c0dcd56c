//! The rounds of a comparison, and its report.
//!
//! All targets are measured in turns within each round, so that a change of the machine meets all of
//! them. A ratio is the median of the ratios within a round.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;

use crate::{
    Failure, load,
    load::Outcome,
    operations::Operation,
    options::Options,
    stack::{Stack, Target},
};

const WARM_UP: Duration = Duration::from_secs(1);

/// One line of the report: an operation of a target.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    operation: String,
    target: String,
    /// Rate of this target by that of the first.
    ratio: f64,
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Processor time of a request.
    service_cpu_us: f64,
    postgres_cpu_us: f64,
    peak_memory_mib: f64,
    unexpected: usize,
    errors: usize,
}

struct Measured {
    outcome: Outcome,
    service_cpu: f64,
    postgres_cpu: f64,
}

/// Measures each operation on all targets, the first of which is the reference.
pub(crate) async fn compare(
    stack: &Stack,
    options: &Options,
    operations: &[Operation],
    targets: &[&Target],
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for operation in operations {
        check(stack, *operation, targets).await?;
        let plans: Vec<_> = targets.iter().map(|target| operation.plan(target)).collect();
        let mut measured: Vec<Vec<Measured>> = targets.iter().map(|_| Vec::new()).collect();
        // The first round warms up.
        for round in 0..=options.rounds {
            for ((target, plan), measured) in targets.iter().zip(&plans).zip(&mut measured) {
                let time = if round == 0 { WARM_UP } else { Duration::from_secs(options.seconds) };
                let (service, postgres) = (target.program.cpu(), stack.postgres_cpu());
                let outcome = load::run(target.address, plan, options.connections.into(), time).await;
                let service_cpu = target.program.cpu() - service;
                let postgres_cpu = stack.postgres_cpu() - postgres;
                if operation.changes() {
                    stack.reset(&target.database).await?;
                }
                if round > 0 {
                    measured.push(Measured { outcome, service_cpu, postgres_cpu });
                }
            }
        }
        for (target, measured_here) in targets.iter().zip(&measured) {
            rows.push(row(*operation, target, measured_here, &measured[0]));
        }
        let added = &rows[rows.len() - targets.len()..];
        let ratios: Vec<String> = added.iter().map(|row| format!("{} {:.2}", row.target, row.ratio)).collect();
        eprintln!("· {}: {}", operation.name(), ratios.join(", "));
    }
    Ok(rows)
}

/// Checks an answer of each target. Targets with the same data must answer alike.
async fn check(stack: &Stack, operation: Operation, targets: &[&Target]) -> Result<(), Failure> {
    let mut first = None;
    for target in targets {
        let answer = operation.check(target).await?;
        if operation.changes() {
            stack.reset(&target.database).await?;
        }
        let (expected, size) = first.get_or_insert_with(|| (answer.clone(), target.size));
        if *size == target.size && *expected != answer {
            return Err(format!("{} of {} answers {answer}, not {expected}", operation.name(), target.name).into());
        }
    }
    Ok(())
}

fn row(operation: Operation, target: &Target, measured: &[Measured], reference: &[Measured]) -> Row {
    let rate = |measured: &Measured| measured.outcome.expected as f64 / measured.outcome.seconds;
    let each = |value: &dyn Fn(&Measured) -> f64| median(measured.iter().map(value).collect());
    let ratio = measured.iter().zip(reference).map(|(own, first)| rate(own) / rate(first)).collect();
    let requests = measured.iter().map(|round| round.outcome.expected).sum::<usize>() as f64;
    let total = |value: &dyn Fn(&Measured) -> f64| measured.iter().map(value).sum::<f64>() * 1e6 / requests;
    Row {
        operation: operation.name(),
        target: target.name.clone(),
        ratio: median(ratio),
        requests_per_second: each(&rate),
        p50_ms: each(&|round| round.outcome.p50),
        p99_ms: each(&|round| round.outcome.p99),
        service_cpu_us: total(&|round| round.service_cpu),
        postgres_cpu_us: total(&|round| round.postgres_cpu),
        peak_memory_mib: target.program.peak_memory(),
        unexpected: measured.iter().map(|round| round.outcome.unexpected).sum(),
        errors: measured.iter().map(|round| round.outcome.errors).sum(),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.as_slice() {
        [] => 0.0,
        values if values.len() % 2 == 1 => values[middle],
        values => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The rows as a Markdown table.
pub(crate) fn table(title: &str, rows: &[Row]) -> String {
    let mut text = format!(
        "\n{title}\n\n| operation | target | ratio | req/s | p50 ms | p99 ms | service CPU µs | PostgreSQL CPU µs | \
         peak MiB | other status | errors |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    for row in rows {
        let Row { operation, target, ratio, requests_per_second, p50_ms, p99_ms, .. } = row;
        let _ = write!(
            text,
            "| {operation} | {target} | {ratio:.2} | {requests_per_second:.0} | {p50_ms:.2} | {p99_ms:.2} "
        );
        let Row { service_cpu_us, postgres_cpu_us, peak_memory_mib, unexpected, errors, .. } = row;
        let _ = writeln!(
            text,
            "| {service_cpu_us:.0} | {postgres_cpu_us:.0} | {peak_memory_mib:.0} | {unexpected} | {errors} |"
        );
    }
    text
}
