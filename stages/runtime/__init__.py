"""The ground floor: settings, trainings, walks over images, work folders, devices, seeds."""
