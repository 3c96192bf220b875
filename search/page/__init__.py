"""The parts of the report page: what it says, chapter by chapter, and its charts."""
