//! The price of security: this service beside one without any, side by side on this machine.
//!
//! `cargo bench --bench price -- --help` lists the options; `docs/price.md` explains the report.
//! PostgreSQL, issuer, services and load run on loopback and end with this process. The load
//! (`load`) is cheap, the rounds (`report`) are interleaved, and answers are checked first
//! (`operations`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a failure ends the benchmark")]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

mod bare;
mod load;
mod operations;
mod options;
mod process;
mod report;
mod stack;
mod without;

use std::{path::Path, process::ExitCode};

use clap::Parser as _;
use operations::{Operation, create_customers};
use options::Options;
use palisade::dev::postgres::Server;
use report::{Row, compare, table};
use stack::{Size, Stack, Target, start_postgres};
use tokio::signal::unix::{SignalKind, signal};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let text: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match text.as_slice() {
        // The processes that `stack` starts.
        ["serve-bare", database, address] => bare::serve(address.parse().unwrap(), database, 16).await,
        ["serve-hello", address] => bare::hello(address.parse().unwrap()).await,
        // Such as `cargo test --benches`: a benchmark is no test.
        _ if !text.contains(&"--bench") => eprintln!("run it with: cargo bench --bench price"),
        _ => match run(&Options::parse()).await {
            Ok(()) => {}
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        },
    }
    ExitCode::SUCCESS
}

async fn run(options: &Options) -> Result<(), Failure> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a folder in the target folder");
    let folder = target.join("price");
    std::fs::create_dir_all(&folder)?;
    let mut server = None;
    // Dropping the future stops every service and build. PostgreSQL ends last.
    let outcome = tokio::select! {
        outcome = measure(options, target, &folder, &mut server) => outcome,
        () = stop_signal() => Err("stopped by a signal".into()),
    };
    if let Some(server) = server {
        server.stop().await;
        let _ = std::fs::remove_dir_all(folder.join("postgres"));
    }
    let rows = outcome?;
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&rows)?)?;
    }
    Ok(())
}

async fn stop_signal() {
    let [mut interrupt, mut terminate] =
        [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).unwrap());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

async fn measure(
    options: &Options,
    target: &Path,
    folder: &Path,
    server: &mut Option<Server>,
) -> Result<Vec<Row>, Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A copy: a build during the run would replace the original.
    let binary = folder.join("product");
    if !options.built {
        std::fs::copy(without::build(root, target).await?, &binary)?;
    }
    let mut changed = Vec::new();
    for control in &options.controls {
        let operations = options.select(control.operations());
        if operations.is_empty() {
            continue;
        }
        if !options.built {
            without::build_without(*control, root, folder).await?;
        }
        changed.push((control.name(), operations, without::binary(*control, folder)));
    }
    if options.build {
        return Ok(Vec::new());
    }
    let stack = Stack::start(server.insert(start_postgres(folder).await?), folder).await?;
    if options.scale {
        return scale(&stack, options, &binary).await;
    }
    let size = Size { orders: usize::try_from(options.orders)? * 2, tenants: 2 };
    let mut product = stack.product("product", &binary, size, &[]).await?;
    create_customers(&mut product).await?;
    let mut rows = Vec::new();
    if changed.is_empty() {
        rows.extend(compare_with_bare(&stack, options, &product).await?);
        rows.extend(compare_refusals(&stack, options, &binary, &product).await?);
    }
    for (name, operations, binary) in changed {
        let mut changed = stack.product(&format!("without {name}"), &binary, size, &[]).await?;
        create_customers(&mut changed).await?;
        let without = compare(&stack, options, &operations, &[&product, &changed]).await?;
        println!("{}", table(&format!("Without {name}, as a ratio to the product"), &without));
        rows.extend(without);
    }
    Ok(rows)
}

async fn compare_with_bare(stack: &Stack, options: &Options, product: &Target) -> Result<Vec<Row>, Failure> {
    let operations = options.select(&Operation::SERVED);
    if operations.is_empty() {
        return Ok(Vec::new());
    }
    let bare = stack.bare(product.size).await?;
    let rows = compare(stack, options, &operations, &[&bare, product]).await?;
    println!("{}", table("Operations, as a ratio to a service without security", &rows));
    Ok(rows)
}

async fn compare_refusals(
    stack: &Stack,
    options: &Options,
    binary: &Path,
    product: &Target,
) -> Result<Vec<Row>, Failure> {
    let operations = options.select(&Operation::REFUSED);
    if operations.is_empty() {
        return Ok(Vec::new());
    }
    let hello = stack.hello(product).await?;
    let mut rows = Vec::new();
    for operation in operations {
        let limits = [("APP_THROTTLE__ADDRESS_PER_SECOND", "0.01"), ("APP_THROTTLE__ADDRESS_BURST", "1")];
        let throttled = if operation == Operation::Throttled {
            Some(stack.start_product("throttled", binary, &product.database, product.size, &limits).await?)
        } else {
            None
        };
        rows.extend(compare(stack, options, &[operation], &[&hello, throttled.as_ref().unwrap_or(product)]).await?);
    }
    println!("{}", table("Refusals, as a ratio to raw HTTP", &rows));
    Ok(rows)
}

/// The same service with more and more data. The ratio is to the smallest.
async fn scale(stack: &Stack, options: &Options, binary: &Path) -> Result<Vec<Row>, Failure> {
    let mut targets = Vec::new();
    for (orders, tenants) in [(10_000, 1), (100_000, 1), (1_000_000, 1), (1_000_000, 1000)] {
        let name = format!("{orders} orders, {tenants} tenants");
        eprintln!("· adding {name}");
        // Four services share the connections of one PostgreSQL.
        let connections = [("APP_DATABASE__MAX_CONNECTIONS", "12")];
        targets.push(stack.product(&name, binary, Size { orders, tenants }, &connections).await?);
    }
    let targets: Vec<&Target> = targets.iter().collect();
    let rows = compare(stack, options, &options.select(&Operation::SCALED), &targets).await?;
    println!("{}", table("Scale, as a ratio to the smallest", &rows));
    Ok(rows)
}
