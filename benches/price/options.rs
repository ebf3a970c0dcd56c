//! Options of the command line.

use std::{path::PathBuf, time::Duration};

use crate::{Failure, operations::Operation, without::CONTROLS};

pub(crate) const HELP: &str = "\
Measures what security costs: this service beside one without any, on this machine.

cargo bench --bench price -- [OPTIONS]

  --rounds N         rounds of each comparison (default 5)
  --seconds N        seconds of each measurement (default 5)
  --orders N         orders of each of the two tenants, at least 1000 (default 50000)
  --connections N    connections of the load (default 32)
  --only A,B         operations: read, list, create, pay, customer,
                     401, 401-forged, 403, 404, 413, 429; with --scale also list-status,
                     list-customer, list-time
  --controls [A,B]   also the service without one control at a time (builds each one)
  --scale            instead: from 10,000 to 1,000,000 orders, and 1 to 1,000 tenants
  --json FILE        writes the rows as JSON too
  --help             this text
";

pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) seconds: Duration,
    pub(crate) orders: usize,
    pub(crate) connections: usize,
    only: Option<Vec<String>>,
    pub(crate) controls: Vec<&'static str>,
    pub(crate) scale: bool,
    pub(crate) json: Option<PathBuf>,
    pub(crate) help: bool,
}

impl Options {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self {
            rounds: 5,
            seconds: Duration::from_secs(5),
            orders: 50_000,
            connections: 32,
            only: None,
            controls: Vec::new(),
            scale: false,
            json: None,
            help: false,
        };
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                // Cargo passes it.
                "--bench" => {}
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.seconds = Duration::from_secs(value()?.parse()?),
                "--orders" => options.orders = value()?.parse()?,
                "--connections" => options.connections = value()?.parse()?,
                "--only" => options.only = Some(value()?.split(',').map(str::to_owned).collect()),
                "--json" => options.json = Some(value()?.into()),
                "--scale" => options.scale = true,
                "--help" | "-h" => options.help = true,
                "--controls" => {
                    let named = arguments.next_if(|next| !next.starts_with('-'));
                    options.controls = controls(named.as_deref())?;
                }
                _ => return Err(format!("unknown option {argument}; see --help").into()),
            }
        }
        if options.rounds == 0 || options.connections == 0 || options.orders < 1000 {
            return Err("too few rounds, connections or orders; see --help".into());
        }
        let all = [&Operation::SERVED[..], &Operation::REFUSED, &Operation::SCALED].concat();
        let unknown = |name: &&String| !all.iter().any(|operation| operation.name() == name.as_str());
        match options.only.iter().flatten().find(unknown) {
            Some(name) => Err(format!("unknown operation {name}; see --help").into()),
            None => Ok(options),
        }
    }

    /// Those of these operations that `--only` names, or all.
    pub(crate) fn select(&self, operations: &[Operation]) -> Vec<Operation> {
        let is_named = |operation: &Operation| {
            self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == operation.name()))
        };
        operations.iter().copied().filter(is_named).collect()
    }
}

/// The named controls, or all.
fn controls(named: Option<&str>) -> Result<Vec<&'static str>, Failure> {
    let all: Vec<_> = CONTROLS.iter().map(|(name, _)| *name).collect();
    let Some(named) = named else { return Ok(all) };
    let find = |name: &str| all.iter().copied().find(|known| *known == name);
    named
        .split(',')
        .map(|name| find(name).ok_or_else(|| format!("no control {name}: {}", all.join(",")).into()))
        .collect()
}
