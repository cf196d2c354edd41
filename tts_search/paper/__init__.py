"""`tts-search reproduce`: the paper's tables and figures in kind, on another model. Nothing else imports it."""
