//! The queues of log records for the collector (LOG-03): one for security events, and one for all
//! other lines. So a flood of lines that fills its queue costs no event.
//!
//! [`super::export`] makes them. Each is emptied by a thread of its own.

use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{BatchConfig, BatchLogProcessor, LogExporter, LogProcessor, SdkLogRecord},
};

use super::metrics;

#[derive(Debug)]
pub(super) struct LogQueues {
    events: BatchLogProcessor,
    lines: BatchLogProcessor,
}

impl LogQueues {
    /// Two equal queues, each with one of two equal exporters.
    pub(super) fn new<E: LogExporter + 'static>(config: impl Fn() -> BatchConfig, exporters: [E; 2]) -> Self {
        let [events, lines] =
            exporters.map(|exporter| BatchLogProcessor::builder(exporter).with_batch_config(config()).build());
        Self { events, lines }
    }
}

impl LogProcessor for LogQueues {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        metrics::record_telemetry("logs", "made", 1);
        let is_event = record.target().is_some_and(|target| target == "security");
        if is_event { &self.events } else { &self.lines }.emit(record, scope);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.events.force_flush().and(self.lines.force_flush())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.events.shutdown_with_timeout(timeout).and(self.lines.shutdown_with_timeout(timeout))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.events.set_resource(resource);
        self.lines.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use opentelemetry::logs::{LogRecord as _, Logger as _, LoggerProvider as _};
    use opentelemetry_sdk::logs::{BatchConfigBuilder, LogBatch, SdkLoggerProvider};

    use super::*;

    /// A collector that responds when `respond` is closed.
    #[derive(Debug)]
    struct SlowExporter {
        respond: Mutex<mpsc::Receiver<()>>,
        targets: Arc<Mutex<Vec<String>>>,
    }

    impl LogExporter for SlowExporter {
        async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
            let _ = self.respond.lock().unwrap().recv();
            let targets = batch.iter().filter_map(|(record, _)| record.target().map(ToString::to_string));
            self.targets.lock().unwrap().extend(targets);
            Ok(())
        }
    }

    /// A unit test, because filling the real queue takes more requests than a test can send.
    #[test]
    fn log_03_flood_of_lines_loses_no_security_event() {
        let targets = Arc::new(Mutex::new(Vec::new()));
        let (stop, exporters): (Vec<_>, Vec<_>) = [(); 2]
            .map(|()| {
                let (stop, respond) = mpsc::channel();
                (stop, SlowExporter { respond: Mutex::new(respond), targets: Arc::clone(&targets) })
            })
            .into_iter()
            .unzip();
        let config = || BatchConfigBuilder::default().with_max_queue_size(4).with_max_export_batch_size(2).build();
        let queues = LogQueues::new(config, exporters.try_into().unwrap());
        let provider = SdkLoggerProvider::builder().with_log_processor(queues).build();
        let logger = provider.logger("");
        let emit = |target: &'static str| {
            let mut record = logger.create_log_record();
            record.set_target(target);
            logger.emit(record);
        };
        (0..100).for_each(|_| emit("a line"));
        emit("security");
        drop(stop);
        provider.shutdown().unwrap();
        let targets = targets.lock().unwrap();
        assert_eq!(targets.iter().filter(|target| *target == "security").count(), 1);
        assert!(targets.len() < 100, "the queue of other lines was not full");
    }
}
