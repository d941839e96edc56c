//! What a store around another one does not change.

/// Within `impl Store`: the methods named are those of `self.inner`.
macro_rules! passes_on {
    ($($method:ident),* $(,)?) => { $( passes_on!(@ $method); )* };
    (@ name_of) => { fn name_of(&self, path: &str) -> String { self.inner.name_of(path) } };
    (@ make_place) => { fn make_place(&self) -> Result<()> { self.inner.make_place() } };
    (@ place_uid) => { fn place_uid(&self) -> Result<Option<u32>> { self.inner.place_uid() } };
    (@ create) => {
        fn create(&self, path: &str, content: Bytes) -> Result<Created> { self.inner.create(path, content) }
    };
    (@ replace) => {
        fn replace(&self, path: &str, content: Bytes) -> Result<()> { self.inner.replace(path, content) }
    };
    (@ read) => { fn read(&self, path: &str) -> Result<Bytes> { self.inner.read(path) } };
    (@ reader) => { fn reader(&self, path: &str) -> Result<Box<dyn Reader>> { self.inner.reader(path) } };
    (@ writer) => {
        fn writer(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>> { self.inner.writer(path, at_most) }
    };
    (@ rewriter) => {
        fn rewriter(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>> { self.inner.rewriter(path, at_most) }
    };
    (@ list) => { fn list(&self, folder: &str) -> Result<Vec<Listed>> { self.inner.list(folder) } };
    (@ folders) => { fn folders(&self, folder: &str) -> Result<Vec<String>> { self.inner.folders(folder) } };
    (@ delete) => { fn delete(&self, paths: &[String]) -> Result<()> { self.inner.delete(paths) } };
    (@ sweep) => { fn sweep(&self, folder: &str) -> Result<u64> { self.inner.sweep(folder) } };
}
