"""What tests share: one real server a session, and a stage with a real model server and a real worker."""
