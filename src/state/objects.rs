//! The object store that checkpoints lie in, by its URL: a directory or a bucket of
//! S3. Everything that is known of the driver ends here. It does not know what the
//! objects hold.
//!
//! - `file:///var/lib/checkpoints`: a directory, made where it is missing. What is
//!   written is on the disk when the call returns. It is never made again: a volume
//!   that is not mounted must not fill the disk beneath it.
//! - `s3://bucket/prefix`: a bucket, with what the environment tells of it, as other
//!   tools read it: `AWS_ENDPOINT_URL` (or `AWS_ENDPOINT`), `AWS_REGION`,
//!   `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, or the role of
//!   the machine it runs on. An endpoint that says `http://` is taken at its word.
//!
//! Every call ends within [`PATIENCE`], whatever becomes of the store.

mod fault;
mod payload;
mod purged;

use std::{fmt, path::PathBuf, sync::Arc, sync::OnceLock, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut},
    local::LocalFileSystem,
    memory::InMemory,
    path::Path,
};

use rustls::crypto::ring as provider;

pub use self::fault::Fault;
use super::checkpoint::{CheckpointId, Part};

/// How long a call may take, repetitions included.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long [`Objects::probe`] may take.
const PROBE: Duration = Duration::from_millis(900);

/// How long one request of a call may take.
const REQUEST: Duration = Duration::from_secs(15);

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);

/// Objects that are removed at once.
const REMOVED_AT_ONCE: usize = 8;

/// Bytes of an object that is read at most: more than any that is written.
const MAX_BYTES: u64 = 1 << 30;

/// An object of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub part: Part,
    /// Its size.
    pub bytes: u64,
}

/// An object store. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    driver: Arc<dyn ObjectStore>,
    /// Where the checkpoints lie in it.
    root: Path,
    /// The directory, where it is one.
    directory: Option<Arc<Directory>>,
    /// What it is called in messages: the URL.
    url: Arc<str>,
}

/// A directory that is made once.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    made: OnceLock<()>,
}

impl Objects {
    /// The object store at this URL, `file://` or `s3://`. Nothing is asked of it
    /// yet: one that cannot be reached is told of by every call.
    ///
    /// # Errors
    /// What is wrong with the URL, or with what the environment tells, in words.
    pub fn open(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("file://") {
            return Self::directory(url, path);
        }
        if let Some(place) = url.strip_prefix("s3://") {
            return Self::bucket(url, place);
        }
        Err("begin it with file:// or s3://".into())
    }

    /// One in memory: gone with the process.
    pub fn in_memory() -> Self {
        Self {
            driver: Arc::new(InMemory::new()),
            root: Path::default(),
            directory: None,
            url: "memory".into(),
        }
    }

    fn directory(url: &str, path: &str) -> Result<Self, String> {
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            return Err("name an absolute path after file://, such as file:///var/lib".into());
        }
        let root = Path::from_absolute_path(&path).map_err(|e| e.to_string())?;
        let driver = LocalFileSystem::new().with_fsync(true);
        let objects = Self {
            driver: Arc::new(driver),
            root,
            directory: Some(Arc::new(Directory {
                path,
                made: OnceLock::new(),
            })),
            url: url.into(),
        };
        if let Err(fault) = objects.made() {
            tracing::warn!(url, %fault, "object store not there yet");
        }
        Ok(objects)
    }

    fn bucket(url: &str, place: &str) -> Result<Self, String> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return Err("name the bucket after s3://".into());
        }
        let root = Path::parse(prefix.trim_end_matches('/')).map_err(|e| e.to_string())?;
        // The only provider that is linked; whoever has installed it did the same.
        let _ = provider::default_provider().install_default();
        let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
        let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        let options = ClientOptions::new()
            .with_timeout(REQUEST)
            .with_connect_timeout(CONNECT)
            .with_allow_http(plain);
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            max_retries: 4,
            retry_timeout: Duration::from_secs(10),
        };
        let driver = builder
            .with_client_options(options)
            .with_retry(retry)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self {
            driver: Arc::new(driver),
            root,
            directory: None,
            url: url.into(),
        })
    }

    /// Puts an object, in place of one that is there.
    ///
    /// # Errors
    /// [`Fault`]; then it may be there or not, and never in part.
    pub async fn put(&self, id: &CheckpointId, part: Part, bytes: Bytes) -> Result<(), Fault> {
        self.made()?;
        let path = self.path(id, part);
        let put = self.driver.put(&path, payload::of(bytes));
        self.patiently(put).await?.map_err(|e| self.fault(e))?;
        Ok(())
    }

    /// Puts an object where none is. False where another one is there, which stays.
    ///
    /// # Errors
    /// As [`Objects::put`].
    pub async fn create(&self, id: &CheckpointId, part: Part, bytes: Bytes) -> Result<bool, Fault> {
        self.made()?;
        let path = self.path(id, part);
        let options = PutOptions::from(PutMode::Create);
        let put = self
            .driver
            .put_opts(&path, payload::of(bytes.clone()), options);
        match self.patiently(put).await? {
            Ok(_) => Ok(true),
            // Where an answer was lost, the repetition meets what it has put itself.
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Ok(self
                .get(id, part)
                .await?
                .is_some_and(|found| found == bytes)),
            Err(error) => Err(self.fault(error)),
        }
    }

    /// The bytes of an object; `None` where there is none.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn get(&self, id: &CheckpointId, part: Part) -> Result<Option<Bytes>, Fault> {
        let path = self.path(id, part);
        let get = async {
            let found = self.driver.get(&path).await?;
            if found.meta.size > MAX_BYTES {
                // Not one of ours; whoever looks at it finds that it is not whole.
                return Ok(Bytes::new());
            }
            found.bytes().await
        };
        match self.patiently(get).await? {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => self.absent(error).map(|()| None),
        }
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn remove(&self, id: &CheckpointId, part: Part) -> Result<(), Fault> {
        let path = self.path(id, part);
        match self.patiently(self.driver.delete(&path)).await? {
            Ok(()) => Ok(()),
            Err(error) => self.absent(error),
        }
    }

    /// Removes all objects of a checkpoint: its manifest first, so that what is left
    /// where this is cut off is no checkpoint.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn remove_all(&self, id: &CheckpointId) -> Result<(), Fault> {
        self.remove(id, Part::Manifest).await?;
        let objects = self.list(id).await?;
        futures::stream::iter(objects)
            .map(|object| self.remove(id, object.part))
            .buffer_unordered(REMOVED_AT_ONCE)
            .try_collect::<()>()
            .await?;
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        // With what a process left there that was killed while it wrote.
        let path = directory.path.join(id.as_str());
        match tokio::fs::remove_dir_all(path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Fault::of_io(&error)),
            _ => Ok(()),
        }
    }

    /// The checkpoints that have objects here, whole or not, the newest first.
    /// Whatever else lies here is passed over.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn checkpoints(&self) -> Result<Vec<CheckpointId>, Fault> {
        self.made()?;
        let list = self.driver.list_with_delimiter(Some(&self.root));
        let found = match self.patiently(list).await? {
            Ok(found) => found,
            Err(error) => return self.absent(error).map(|()| Vec::new()),
        };
        let mut ids: Vec<_> = found
            .common_prefixes
            .iter()
            .filter_map(|prefix| CheckpointId::parse(prefix.filename()?).ok())
            .collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        Ok(ids)
    }

    /// The objects of a checkpoint, in no order. Whatever else lies there is passed
    /// over.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn list(&self, id: &CheckpointId) -> Result<Vec<Object>, Fault> {
        let prefix = self.root.clone().join(id.as_str());
        let list = self.driver.list(Some(&prefix));
        let known = |meta: object_store::ObjectMeta| {
            let part = meta.location.filename().and_then(Part::parse)?;
            let bytes = meta.size;
            Some(Object { part, bytes })
        };
        let found = list
            .try_filter_map(|meta| futures::future::ready(Ok(known(meta))))
            .try_collect();
        match self.patiently(found).await? {
            Ok(found) => Ok(found),
            Err(error) => self.absent(error).map(|()| Vec::new()),
        }
    }

    /// Asks whether the store is there, within a second: a directory is written to, a
    /// bucket is read.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn probe(&self) -> Result<(), Fault> {
        let asked = async {
            if let Some(directory) = self.directory.clone() {
                self.made()?;
                let written = tokio::task::spawn_blocking(move || directory.probe()).await;
                return match written {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(Fault::of_io(&error)),
                    Err(error) => Err(Fault::Unreachable(error.to_string())),
                };
            }
            // One that is not there: only the bucket counts.
            match self.driver.get(&self.root.clone().join("probe")).await {
                Ok(_) => Ok(()),
                Err(error) => self.absent(error),
            }
        };
        let found = tokio::time::timeout(PROBE, asked).await;
        found.unwrap_or_else(|_| Err(Fault::late(PROBE)))
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn path(&self, id: &CheckpointId, part: Part) -> Path {
        self.root.clone().join(id.as_str()).join(part.to_string())
    }

    /// Sees to it that a directory is there, which is made once.
    fn made(&self) -> Result<(), Fault> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        if directory.made.get().is_some() {
            return if directory.path.is_dir() {
                Ok(())
            } else {
                let path = directory.path.display();
                Err(Fault::Unreachable(format!(
                    "{path} is no directory any more"
                )))
            };
        }
        std::fs::create_dir_all(&directory.path).map_err(|e| Fault::of_io(&e))?;
        let _ = directory.made.set(());
        Ok(())
    }

    async fn patiently<T>(
        &self,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<object_store::Result<T>, Fault> {
        let answer = tokio::time::timeout(PATIENCE, call).await;
        answer.map_err(|_| Fault::late(PATIENCE))
    }

    /// Nothing, where the error says that there is no such object and all else is
    /// well.
    fn absent(&self, error: object_store::Error) -> Result<(), Fault> {
        let missing = matches!(error, object_store::Error::NotFound { .. });
        let fault = self.fault(error);
        match fault {
            Fault::Unreachable(_) if missing && !fault.is_of_the_bucket() => self.made(),
            fault => Err(fault),
        }
    }

    fn fault(&self, error: object_store::Error) -> Fault {
        let fault = Fault::of(error);
        tracing::debug!(url = %self.url, %fault, "object store call failed");
        fault
    }
}

impl Directory {
    /// Writes a byte, and takes it away again.
    fn probe(&self) -> std::io::Result<()> {
        let path = self.path.join(format!(".probe-{}", std::process::id()));
        std::fs::write(&path, b".")?;
        std::fs::remove_file(&path)
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Objects").field(&self.url).finish()
    }
}
