// Enlarge what a window shows, and keep its middle in the middle.
function zoomTo(id, factor) {
  const window_ = getHtmlElement(id), stage = window_.firstElementChild;
  const middle = ["Left", "Top"].map((side, axis) => {
    const size = axis ? "Height" : "Width";
    return (window_["scroll" + side] + window_["client" + size] / 2) / stage["offset" + size];
  });
  stage.style.width = 100 * factor + "%";
  window_.scrollLeft = middle[0] * stage.offsetWidth - window_.clientWidth / 2;
  window_.scrollTop = middle[1] * stage.offsetHeight - window_.clientHeight / 2;
}

// While a pointer is held down: both ends of its way as shares of the stage, and whether it has ended.
function dragged(event, emit) {
  const stage = event.currentTarget, frame = stage.getBoundingClientRect();
  const share = (value, start, length) => Math.min(1, Math.max(0, (value - start) / length));
  const at = [share(event.clientX, frame.left, frame.width), share(event.clientY, frame.top, frame.height)];
  if (event.type === "pointerdown") {
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    stage.from = at;
  } else if (stage.from) {
    const end = event.type === "pointercancel" ? stage.from : at;  // what is cancelled leaves no box
    emit(...stage.from, ...end, event.type === "pointerup");
    if (event.type !== "pointermove") stage.from = null;
  }
}
