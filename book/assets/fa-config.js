// The theme's Font Awesome swaps every new <i> for an <svg>; the Play button of ipywidgets then throws on each step.
window.FontAwesomeConfig = { observeMutations: false };
