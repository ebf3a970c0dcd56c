//! The command line: parses arguments, loads the settings that a command needs, and runs it.
//!
//! `--help` lists the commands. `serve` runs the service ([`app`]); the others are operator
//! commands ([`ops`]), checks, printed documents and, with the feature `dev`, the development
//! stack.

mod checks;
mod health;
mod tenant;

use std::{error::Error as StdError, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    app::{self, App},
    authz::{Matrix, internal},
    db, edge,
    model::Clock,
    ops, package,
    settings::{self, LoginSettings, RetirementSettings, ServiceSettings, Settings, Sources},
    telemetry::{self, LogFilter, LogFormat},
};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service until SIGTERM or SIGINT, then finish the requests in flight; SIGHUP reloads
    /// secrets and fetches issuer keys
    Serve,
    /// Check that the service on this machine is ready, for probes of containers
    Health(health::Health),
    /// Update the database schema, with the login of `APP_DATABASE__OWNER_URL`
    Migrate,
    /// Respond to an incident, with the login of `APP_DATABASE__OPERATOR_URL`
    #[command(subcommand)]
    Incident(ops::Incident),
    /// Register, list, suspend, export or delete tenants, with the login of
    /// `APP_DATABASE__OPERATOR_URL`
    #[command(subcommand)]
    Tenant(ops::TenantCommand),
    /// Verify, prune or explain the audit trail
    #[command(subcommand)]
    Audit(Audit),
    /// Rotate keys of sealed fields, or retire them (`drop`, `forget-index`, `destroy`); needs the
    /// settings of `serve` unless stated otherwise
    #[command(subcommand)]
    Keys(Keys),
    #[cfg(feature = "backup")]
    #[command(flatten)]
    Backup(ops::BackupCommand),
    /// Check the configuration, list every fault, and name what it accepts beyond the defaults
    CheckConfig,
    /// Try issuers, database, quota store, master keys and collector with the settings of `serve`
    Doctor,
    /// Examine access tokens
    #[command(subcommand)]
    Token(checks::Token),
    /// Print every setting: its variable, values and default
    Settings {
        /// Print docs/settings.md
        #[arg(long)]
        markdown: bool,
    },
    /// Print the route matrix: which callers may call which operation
    Routes {
        /// Print it as the table of SECURITY.md
        #[arg(long)]
        markdown: bool,
    },
    /// Print the OpenAPI document
    Openapi {
        /// URL of the issuer whose tokens are accepted
        #[arg(long, default_value = "https://login.example.com")]
        issuer: String,
        /// URL that callers use for the service
        #[arg(long, default_value = "https://api.example.com")]
        public_url: String,
    },
    /// Run the whole stack for development: PostgreSQL, issuer, demo data, API
    #[cfg(feature = "dev")]
    Dev {
        /// Port of the API
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// Port of the issuer
        #[arg(long, default_value_t = 8081)]
        issuer_port: u16,
        /// Port of the internal listener
        #[arg(long, default_value_t = 8082)]
        internal_port: u16,
        /// Start with an empty database
        #[arg(long)]
        fresh: bool,
        /// Directory that keeps data between runs
        #[arg(long, default_value = ".dev")]
        folder: std::path::PathBuf,
    },
}

#[derive(Subcommand)]
enum Keys {
    #[command(flatten)]
    Rotate(ops::Keys),
    #[command(flatten)]
    Retire(ops::RetireKeys),
}

#[derive(Subcommand)]
enum Audit {
    /// Verify that the audit trail of all tenants is unchanged, with the login of
    /// `APP_DATABASE__BACKUP_URL`
    Verify(ops::Verify),
    /// Delete old events, with the login of `APP_DATABASE__OWNER_URL`
    Prune(ops::Prune),
    /// Declare that the database was restored to an earlier time, with the login of
    /// `APP_DATABASE__OWNER_URL`
    Restored(ops::Restored),
}

/// Runs the command of the arguments. Call it once, from `main`.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "`main` passes on what it makes for this call")]
pub fn run<S: ServiceSettings>(app: App<S>) -> ExitCode {
    let about = format!("{}, configured by environment variables APP_…; see README.md", app.document_title().title);
    let command = Arguments::command().name(package::name()).version(package::version()).about(about);
    let arguments = Arguments::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    // Boxed, because the future is as large as that of the largest command.
    let outcome = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(Box::pin(run_command(&app, arguments.command))));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprintln!("  caused by: {error}");
                source = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run_command<S: ServiceSettings>(app: &App<S>, command: Command) -> Result<(), Box<dyn StdError>> {
    match command {
        Command::Serve => {
            let settings = Settings::load(app.sections())?;
            let telemetry = telemetry::serve(&settings.log, settings.otlp.as_ref())?;
            settings::log_secrets_read("serve", &settings.secrets_read);
            let outcome = Box::pin(serve(app, settings)).await;
            telemetry.finish().await;
            outcome?;
        }
        Command::Health(health) => health.run().await?,
        Command::Migrate => {
            db::migrate(&with_logging("migrate", LoginSettings::owner()?).url).await?;
            println!("the schema is up to date");
        }
        Command::Incident(incident) => run_incident(app, &incident).await?,
        Command::Tenant(command) => tenant::run(app, &command).await?,
        Command::Audit(audit) => {
            let report = |line| println!("{line}");
            match audit {
                Audit::Verify(verify) => verify.run(&with_logging("audit", LoginSettings::backup()?), report).await?,
                Audit::Prune(prune) => prune.run(&with_logging("audit", LoginSettings::owner()?), report).await?,
                Audit::Restored(restored) => {
                    restored.run(&with_logging("audit", LoginSettings::owner()?), report).await?;
                }
            }
        }
        Command::Keys(Keys::Rotate(keys)) => {
            let settings = load_settings(app, "keys")?;
            let operator = keys.needs_operator().then(LoginSettings::operator).transpose()?;
            let operator = operator.map(|operator| with_logging("keys", operator));
            keys.run(&settings, app.sealed_tables(), operator.as_ref(), &Clock::system(), |line| println!("{line}"))
                .await?;
        }
        Command::Keys(Keys::Retire(keys)) => {
            let mut settings = RetirementSettings::load(keys.needs_index_keys())?;
            settings.operator = with_logging("keys", settings.operator);
            keys.run(&settings, &Clock::system(), |line| println!("{line}")).await?;
        }
        #[cfg(feature = "backup")]
        Command::Backup(command) => run_backup(app, &command).await?,
        Command::CheckConfig => checks::check_config(app)?,
        Command::Doctor => checks::doctor(app).await?,
        Command::Token(checks::Token::Explain) => checks::explain_token(app).await?,
        Command::Settings { markdown: true } => print!("{}", app.settings_reference()),
        Command::Settings { markdown: false } => print!("{}", settings::plain(app.sections())),
        Command::Routes { markdown: true } => print!("{}", app.matrix()?.markdown()),
        Command::Routes { markdown: false } => print!("{}", routes(&app.matrix()?)),
        Command::Openapi { issuer, public_url } => {
            let document = app.document();
            let matrix = app.matrix()?;
            document.check_schemas(&matrix)?;
            println!("{}", serde_json::to_string_pretty(&document.render(&matrix, &issuer, &public_url))?);
        }
        #[cfg(feature = "dev")]
        Command::Dev { port, issuer_port, internal_port, fresh, folder } => {
            let options = crate::dev::Options { port, issuer_port, internal_port, fresh, folder };
            Box::pin(crate::dev::run(app, options, stop_signal()?))
                .await
                .map_err(|error| -> Box<dyn StdError> { error })?;
        }
    }
    Ok(())
}

#[cfg(feature = "backup")]
async fn run_backup<S: ServiceSettings>(app: &App<S>, command: &ops::BackupCommand) -> Result<(), Box<dyn StdError>> {
    let login = || LoginSettings::backup().map(|login| with_logging("backup", login));
    let written = match command {
        ops::BackupCommand::Backup(backup) => backup.write(&login()?).await?,
        ops::BackupCommand::BackupKeys(backup) => backup.write(&login()?).await?,
        ops::BackupCommand::Restore(restore) => {
            let login = with_logging("restore", LoginSettings::owner()?);
            let again = restore.run(&login, app.sealed_tables()).await?;
            let (rows, of_rows, tenants) = (again.rows, again.of_rows, again.tenants);
            println!("erased again: {rows} rows, of {of_rows} with sealed fields; keys of {tenants} tenants");
            println!("restored; run `migrate` to update the schema");
            return Ok(());
        }
    };
    for summary in written {
        let file = summary.file.display();
        eprintln!("{file}: {} bytes, encrypted; SHA-256 of the file: {}", summary.bytes, summary.sha256);
    }
    Ok(())
}

/// Runs an incident command. Key rotation takes long and runs in the foreground here; the internal
/// listener runs it in the background.
async fn run_incident<S: ServiceSettings>(app: &App<S>, incident: &ops::Incident) -> Result<(), Box<dyn StdError>> {
    // Loaded first, so that the audit trail records no rotation that then fails for its settings.
    let rotates = matches!(incident, ops::Incident::Rotate(_));
    let settings = rotates.then(|| load_settings(app, "incident")).transpose()?;
    let login = with_logging("incident", LoginSettings::operator()?);
    let outcome = incident.run(&login.url, "", Clock::system().now()).await?;
    println!("{}", outcome.message);
    if let (Some(options), Some(settings)) = (outcome.rotation, settings) {
        ops::Keys::Rotate { options }
            .run(&settings, app.sealed_tables(), None, &Clock::system(), |line| println!("{line}"))
            .await?;
    }
    Ok(())
}

async fn serve<S: ServiceSettings>(app: &App<S>, mut settings: Settings) -> Result<(), Box<dyn StdError>> {
    let stop = stop_signal()?;
    edge::ensure_descriptor_limit(&mut settings)?;
    reload_on_hangup(settings.sources.clone())?;
    app::start(app, settings, Clock::system()).await?.run(stop).await?;
    Ok(())
}

/// Loads the settings of the service for a command that acts as the service. Starts logging, and
/// logs which secrets were read.
fn load_settings<S: ServiceSettings>(app: &App<S>, component: &str) -> Result<Settings, settings::Faults> {
    let settings = Settings::load(app.sections())?;
    telemetry::init(settings.log.format, &settings.log.filter);
    settings::log_secrets_read(component, &settings.secrets_read);
    Ok(settings)
}

/// Starts logging for a command that needs one login, and logs that its password was read.
fn with_logging(component: &str, login: LoginSettings) -> LoginSettings {
    telemetry::init(LogFormat::default(), &LogFilter::default());
    settings::log_secrets_read(component, &login.secrets_read);
    login
}

/// Resolves at SIGTERM or SIGINT (Ctrl-C).
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Reloads the files of secrets and certificates, and the keys of issuers, at each SIGHUP.
fn reload_on_hangup(sources: Sources) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            sources.hang_up();
        }
    });
    Ok(())
}

/// Renders the route matrix as aligned text.
fn routes(matrix: &Matrix) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for row in matrix.iter() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<6} {:<27} {:<13} {:<15} {:<14} {:<9} {:<8} {:<17} fails {}{}",
            row.method.as_str(),
            row.path,
            row.callers.as_str(),
            row.scope.map_or("-", |scope| scope.as_str()),
            row.permission.map_or("-", |permission| permission.as_str()),
            row.quota.as_str(),
            row.data.as_str(),
            row.audit,
            row.outage,
            row.step_up.map_or_else(String::new, |step_up| format!(", sign-in within {} s", step_up.max_age())),
        );
    }
    for row in internal::INTERNAL {
        let _ = writeln!(
            text,
            "{:<6} {:<27} {:<13} right {}, on the internal listener",
            row.method.as_str(),
            row.path,
            "service",
            row.right.as_str(),
        );
    }
    text
}
