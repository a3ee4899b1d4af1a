"""What the studio can do, one file a subject: called alike by page, endpoints and command line. No Gradio, no torch."""
