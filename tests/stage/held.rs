//! A backup that is stopped in the middle: its store is slow, its memory small, and after its first megabytes the store
//! does not answer. So what a test does happens after the listing and before the end, on every machine.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use holdfast_testkit::proxy::TcpProxy;

use super::Stage;
use super::proof::wait_until_it_has_read;

/// Less than the memory of a backup here, and more than it reads before its first upload.
const READ_BYTES: u64 = 6 << 20;

/// A proxy to the stage's S3 server that can stop answering, and a configuration that uses it.
pub(crate) struct SlowStore {
    pub(crate) proxy: TcpProxy,
    pub(crate) config: PathBuf,
}

impl SlowStore {
    /// Uses the configuration of the stage.
    pub(crate) fn of(stage: &Stage) -> Self {
        Self::with(stage, &stage.config_text())
    }

    /// Uses another configuration.
    pub(crate) fn with(stage: &Stage, config: &str) -> Self {
        let s3 = stage.s3.as_ref().expect("an S3 server");
        let proxy = TcpProxy::start(s3.address()).expect("start a proxy");
        let slow = config
            .replace(&s3.endpoint(), &proxy.endpoint())
            .replace("start_fast = true", "start_fast = true\nmemory = \"32MiB\"");
        assert_ne!(config, slow);
        Self { proxy, config: stage.write_config("slow.toml", &slow) }
    }

    /// A backup, started with these arguments, that has begun to copy and does not continue until [`Self::let_go`].
    pub(crate) async fn hold(&self, stage: &Stage, arguments: &[&str]) -> Child {
        self.proxy.set_latency(Duration::from_millis(60));
        let mut command = stage.command_with(&self.config, arguments);
        let backup = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start a backup");
        wait_until_it_has_read(&backup, READ_BYTES).await;
        self.proxy.stall();
        backup
    }

    /// The store answers again, without delay.
    pub(crate) fn let_go(&self) {
        self.proxy.set_latency(Duration::ZERO);
        self.proxy.resume();
    }
}
