//! Configuration: every key declared once (default, environment name, text), and where things are found.
//! Called by start-up, the command line and the client. Reads files and the environment, nothing else.
