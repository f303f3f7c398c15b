"""Real processes under load, broken in every way we know; in the end SQL says whether a job was lost or accepted twice."""
