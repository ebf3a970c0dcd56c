//! Options of the command line.

use std::path::PathBuf;

use clap::Parser;

use crate::{operations::Operation, without::Control};

/// Measures what security costs: this service beside one without any, on this machine.
///
/// docs/price.md explains the report.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench --bench price --")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(crate) struct Options {
    /// Rounds of each comparison.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
    /// Orders of each of the two tenants.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1000..))]
    pub(crate) orders: u32,
    /// Connections of the load.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub(crate) connections: u16,
    /// Only these operations.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<Operation>,
    /// Instead: the service without one control at a time, all or these. Builds each one.
    #[arg(long, value_delimiter = ',', num_args = 0.., default_missing_values = Control::NAMES)]
    pub(crate) controls: Vec<Control>,
    /// Instead: the service with more and more orders and tenants.
    #[arg(long)]
    pub(crate) scale: bool,
    /// Only builds. Measure with --built, when the machine is otherwise idle.
    #[arg(long, conflicts_with = "built")]
    pub(crate) build: bool,
    /// Measures what an earlier run with --build has built.
    #[arg(long)]
    pub(crate) built: bool,
    /// Also writes the rows of the report to this file.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Cargo passes it.
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

impl Options {
    /// Those of these operations that `--only` names, or all.
    pub(crate) fn select(&self, operations: &[Operation]) -> Vec<Operation> {
        let is_named = |operation: &&Operation| self.only.is_empty() || self.only.contains(operation);
        operations.iter().filter(is_named).copied().collect()
    }
}
