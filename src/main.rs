//! The command line. `service --help` lists the commands.

use std::{error::Error as StdError, process::ExitCode, sync::Arc};

use clap::{Parser, Subcommand};
use service::{
    api, app,
    authz::{
        internal,
        matrix::{self, Scope},
    },
    crypto::MasterKeys,
    domain::Clock,
    edge,
    measures::Measures,
    ops,
    quota::Quotas,
    settings::{self, LoginSettings, RetirementSettings, Settings, Sources},
    store,
    telemetry::{self, LogFilter, LogFormat},
};
use tokio::signal::unix::{SignalKind, signal};

/// A secure orders and billing API. Configured by environment variables APP_…; see README.md.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service until SIGTERM or SIGINT, then finish the requests in flight; SIGHUP has it read its secrets again
    Serve,
    /// Bring the database schema up to date, as the login of `APP_DATABASE__OWNER_URL`
    Migrate,
    /// Handle an incident, as the login of `APP_DATABASE__OPERATOR_URL`
    #[command(subcommand)]
    Incident(ops::Incident),
    /// Look after the audit trail
    #[command(subcommand)]
    Audit(Audit),
    /// Rotate the keys of sealed fields; needs what `serve` needs, but for those that say otherwise
    #[command(subcommand)]
    Keys(Keys),
    /// Write an encrypted backup, as the login of `APP_DATABASE__BACKUP_URL`
    Backup(ops::Backup),
    /// Put a backup into an empty database, as the login of `APP_DATABASE__OWNER_URL`: all of it or nothing
    Restore(ops::Restore),
    /// Check the configuration and list everything that is wrong with it
    CheckConfig,
    /// Print the route matrix: who may call what
    Routes {
        /// As the table of SECURITY.md
        #[arg(long)]
        markdown: bool,
    },
    /// Print the OpenAPI document
    Openapi {
        /// The issuer whose tokens are accepted
        #[arg(long, default_value = "https://login.example.com")]
        issuer: String,
        /// Where callers reach the service
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
        /// Where data is kept between runs
        #[arg(long, default_value = ".dev")]
        folder: std::path::PathBuf,
    },
}

#[derive(Subcommand)]
enum Keys {
    #[command(flatten)]
    Renew(ops::Keys),
    #[command(flatten)]
    Retire(ops::RetiredKeys),
}

#[derive(Subcommand)]
enum Audit {
    /// Find out whether it is what was written, as the login of `APP_DATABASE__BACKUP_URL`, which sees every tenant's
    Verify(ops::Verify),
}

#[tokio::main]
async fn main() -> ExitCode {
    // In a box: it is as large as the largest of the commands.
    match Box::pin(run(Arguments::parse().command)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), Box<dyn StdError>> {
    match command {
        Command::Serve => {
            let settings = Settings::load()?;
            let telemetry = telemetry::serve(&settings.log, settings.otlp.as_ref())?;
            settings::tell("serve", &settings.secrets_read);
            let outcome = serve(settings).await;
            telemetry.finish().await;
            outcome?;
        }
        Command::Migrate => {
            store::migrate(&told("migrate", LoginSettings::owner()?).url).await?;
            println!("the schema is up to date");
        }
        Command::Incident(incident) => handle(&incident).await?,
        Command::Audit(Audit::Verify(verify)) => {
            verify.run(&told("audit", LoginSettings::backup()?), |line| println!("{line}")).await?;
        }
        Command::Keys(Keys::Renew(keys)) => {
            let settings = all_settings("keys")?;
            let operator = keys.is_for_operators().then(LoginSettings::operator).transpose()?;
            let operator = operator.map(|operator| told("keys", operator));
            keys.run(&settings, operator.as_ref(), &Clock::system(), |line| println!("{line}")).await?;
        }
        Command::Keys(Keys::Retire(keys)) => {
            let mut settings = RetirementSettings::load(keys.needs_index_keys())?;
            settings.operator = told("keys", settings.operator);
            keys.run(&settings, &Clock::system(), |line| println!("{line}")).await?;
        }
        Command::Backup(backup) => {
            let written = backup.write(&told("backup", LoginSettings::backup()?))?;
            eprintln!("{} bytes, encrypted; SHA-256 of the file: {}", written.bytes, written.sha256);
        }
        Command::Restore(restore) => {
            restore.run(&told("restore", LoginSettings::owner()?))?;
            println!("restored; `migrate` brings the schema up to date");
        }
        Command::CheckConfig => {
            let settings = Settings::load()?;
            let internal = settings.internal.map(|internal| internal.tls);
            for tls in settings.tls.into_iter().chain(internal) {
                edge::Tls::load(tls, Clock::system())?;
            }
            Quotas::new(
                settings.quota,
                &settings.secrets.mac_key,
                Clock::system(),
                Arc::new(Measures::new(Clock::system())),
            )?;
            MasterKeys::new(&settings.keys)?;
            println!("the configuration is sound");
        }
        Command::Routes { markdown: true } => print!("{}", matrix::markdown()),
        Command::Routes { markdown: false } => print!("{}", routes()),
        Command::Openapi { issuer, public_url } => {
            println!("{}", serde_json::to_string_pretty(&api::document(&issuer, &public_url))?);
        }
        #[cfg(feature = "dev")]
        Command::Dev { port, issuer_port, internal_port, fresh, folder } => {
            let options = service::dev::Options { port, issuer_port, internal_port, fresh, folder };
            Box::pin(service::dev::run(options, stop_signal()?)).await?;
        }
    }
    Ok(())
}

/// What it takes its time for is done here; at the internal listener the service does it.
async fn handle(incident: &ops::Incident) -> Result<(), Box<dyn StdError>> {
    // Before it is written down that keys are rotated.
    let rotates = matches!(incident, ops::Incident::Rotate(_));
    let settings = rotates.then(|| all_settings("incident")).transpose()?;
    let login = told("incident", LoginSettings::operator()?);
    let done = incident.run(&login.url, "", Clock::system().now()).await?;
    println!("{}", done.said);
    if let (Some(pass), Some(settings)) = (done.rotate, settings) {
        ops::Keys::Rotate { pass }.run(&settings, None, &Clock::system(), |line| println!("{line}")).await?;
    }
    Ok(())
}

async fn serve(mut settings: Settings) -> Result<(), Box<dyn StdError>> {
    let stop = stop_signal()?;
    edge::provide_descriptors(&mut settings)?;
    look_at_hangup(settings.sources.clone())?;
    app::start(settings, Clock::system()).await?.run(stop).await?;
    Ok(())
}

/// The settings of the service, for a command that does what it could do. Says which secrets were read.
fn all_settings(component: &str) -> Result<Settings, settings::Faults> {
    let settings = Settings::load()?;
    telemetry::init(settings.log.format, &settings.log.filter);
    settings::tell(component, &settings.secrets_read);
    Ok(settings)
}

/// Says that a login's password was read.
fn told(component: &str, login: LoginSettings) -> LoginSettings {
    telemetry::init(LogFormat::default(), &LogFilter::default());
    settings::tell(component, &login.secrets_read);
    login
}

/// Resolves at SIGTERM or SIGINT (Ctrl-C).
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// At each SIGHUP, files of secrets and certificates are looked at.
fn look_at_hangup(sources: Sources) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            sources.look_now();
        }
    });
    Ok(())
}

/// The matrix as aligned text.
fn routes() -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for row in &matrix::MATRIX {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<6} {:<27} {:<13} {:<15} {:<14} {:<9} {:<8} {:<17} fails {}",
            row.method.as_str(),
            row.path,
            format!("{:?}", row.callers),
            row.scope.map_or("-", Scope::as_str),
            row.permission.map_or_else(|| "-".to_owned(), |permission| format!("{permission:?}")),
            format!("{:?}", row.quota),
            format!("{:?}", row.data),
            row.audit,
            format!("{:?}", row.outage).to_lowercase(),
        );
    }
    for row in &internal::INTERNAL {
        let right = format!("{:?}", row.right);
        let _ = writeln!(
            text,
            "{:<6} {:<27} {:<13} right {right}, on the internal listener",
            row.method.as_str(),
            row.path,
            "Service"
        );
    }
    text
}
