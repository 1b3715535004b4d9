document.getElementById("again").addEventListener("click", () => window.location.reload());

// Keys go to the terminal as soon as it is there, without a click.
new MutationObserver((_, observer) => {
  if (document.body.classList.contains("-first-byte")) {
    observer.disconnect();
    document.querySelector(".xterm-helper-textarea")?.focus();
  }
}).observe(document.body, { attributes: true });
