/** Said until the server has told anything. */
export function Loading() {
  return (
    <p className="loading" role="status">
      Loading…
    </p>
  );
}
